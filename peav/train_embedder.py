"""Train the embedder: audio tower and text heads over a frozen codec and a frozen sentence encoder.

    python -m peav.train_embedder codec=runs/codec/model data.manifests=[PATH/manifest.jsonl] folder=runs/embedder
    python -m peav.train_embedder +debug=embedder               # a minute on a CPU, after +debug=codec

Running the same command again resumes. The result is ``<folder>/model``, for ``peav.checkpoints.load``. The loss is
the pairwise sigmoid loss; two rows of a batch whose labels answer the same prompt are no negatives of each other.
"""

from __future__ import annotations

import random
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from . import captions, checkpoints
from .clips import ClipStore
from .codec import DACVAE
from .config import PEAVConfig
from .losses import sigmoid_contrastive
from .model import PEAV
from .text import sentence_encoder
from .tracks import MUSIC, TrackSampler, scene_of
from .train_codec import open_stores
from .training import Ema, Loop, Run, average_gradients, batches, to_device
from .transformer import TransformerConfig


class EmbedderBatches:
    """Batch number to tracks ``audio [B, T]`` with captions; some have a quieter second sound behind them."""

    def __init__(self, store: ClipStore, config: DictConfig, seed: int, change: float, behind: float):
        self.store, self.seed, self.behind = store, seed, behind
        self.tracks = TrackSampler(store, config.data.label_power, change)
        self.T = round(config.data.seconds * store.sample_rate)
        self.batch_size = config.loop.batch_size

    def __call__(self, number: int) -> dict:
        rng = np.random.default_rng((self.seed, number))
        words = random.Random(int(rng.integers(2**31)))
        audio, phrases, labels = [], [], []
        for _ in range(self.batch_size):
            track = self.tracks.track(self.tracks.draw_label(rng), self.T, rng)
            x = track.samples
            if rng.random() < self.behind:
                other = self.tracks.track(self.tracks.draw_label(rng), self.T, rng)
                x = x + 10 ** (-rng.uniform(3, 25) / 20) * other.samples
            audio.append(x * (rng.uniform(0.05, 0.9) / max(float(np.abs(x).max()), 1e-6)))
            labels.append(track.label)
            phrases.append(captions.draw(words, track.label, self.store.clips[track.clip].captions,
                                         scene_of(track.label) == MUSIC))
        same = torch.tensor([[captions.overlap(a, b) for b in labels] for a in labels])
        return {"audio": torch.from_numpy(np.stack(audio).astype(np.float32)), "phrases": phrases,
                "labels": labels, "same": same}


class SentenceCache:
    """Sentence vectors ``[B, 384]`` of phrases; each phrase runs through the encoder once."""

    def __init__(self) -> None:
        self._known: dict[str, Tensor] = {}

    def __call__(self, phrases: list[str]) -> Tensor:
        new = [p for p in dict.fromkeys(phrases) if p not in self._known]
        if new:
            self._known.update(zip(new, sentence_encoder()(new).cpu().clone(), strict=True))
        return torch.stack([self._known[p] for p in phrases])


def hide(latent: Tensor, chance: float) -> Tensor:
    """Silence random stretches of time and of channels (SpecAugment, arXiv 1904.08779), differently per item."""
    B, D, F = latent.shape
    keep = torch.ones(B, D, F, device=latent.device)
    for b in range(B):
        for axis, size in ((1, D), (2, F)):
            if torch.rand(()) < chance:
                width = int(torch.randint(1, max(size // 5, 2), ()))
                start = int(torch.randint(0, size - width + 1, ()))
                keep[b].narrow(axis - 1, start, width).zero_()
    return latent * keep


@torch.inference_mode()
def validate(model: PEAV, sentences: SentenceCache, held_out: list[dict], device: torch.device) -> dict[str, float]:
    """Zero-shot classification of held-out tracks among all their labels: share named right, right in the top 5."""
    labels = sorted({label for batch in held_out for label in batch["labels"]})
    text = model.text_embedding(sentences(labels).to(device))
    first, five, total = 0.0, 0.0, 0
    for batch in held_out:
        scores = model.audio_embedding(model.codec.latents(batch["audio"].to(device)[:, None])) @ text.T
        order = scores.argsort(dim=1, descending=True).tolist()
        for label, row in zip(batch["labels"], order, strict=True):
            # "hi-hat" for a closed hi-hat is not wrong, so overlapping labels count as right.
            hits = [captions.overlap(label, labels[i]) for i in row[:5]]
            first, five, total = first + hits[0], five + any(hits), total + 1
    return {"valid/top1": first / total, "valid/top5": five / total}


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    codec = DACVAE.from_pretrained(config.codec)
    settings = PEAVConfig(codec=codec.config, audio=TransformerConfig(**config.tower), **config.embedder)
    model = PEAV(settings).to(run.device).train()
    model.use_codec(codec)
    train_store, valid_store = open_stores(config, run, model.sample_rate)
    sentences = SentenceCache()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=loop.lr, betas=(0.9, 0.98), weight_decay=loop.weight_decay)
    ema = Ema(model, loop.ema)
    if run.resume(model=model, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    make_valid = EmbedderBatches(valid_store, config, 2**31 - 1, change=0.0, behind=0.0)
    held_out = [make_valid(i) for i in range(config.data.valid_batches)]
    for batch in batches(EmbedderBatches(train_store, config, loop.seed, config.data.change, 0.4), run):
        if run.done:
            break
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate()
        batch = to_device(batch, run.device)
        with torch.no_grad():
            latent = hide(model.codec.latents(batch["audio"][:, None]), config.data.hide)
        with run.autocast():
            audio = model.audio_embedding(latent)
            text = model.text_embedding(sentences(batch["phrases"]).to(run.device))
        loss = sigmoid_contrastive(audio.float(), text.float(), model.scalar("text_audio_logit_scale"),
                                   model.scalar("text_audio_logit_bias"), same=batch["same"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, loop.clip)
        optimizer.step()
        ema.update(model)
        run.step += 1
        run.track({"loss": loss, "gradient": norm, "scale": model.scalar("text_audio_logit_scale")})
        if run.step % loop.valid_every == 0:
            with ema.swapped(model):
                run.write(validate(model.eval(), sentences, held_out, run.device))
            model.train()
        if run.save_due():
            run.save(model=model, optimizer=optimizer, ema=ema)
    run.save(model=model, optimizer=optimizer, ema=ema)
    with ema.swapped(model):
        figures = validate(model.eval(), sentences, held_out, run.device)
        if run.rank == 0:
            checkpoints.save(model, Path(run.folder) / "model", dtype=torch.float16)
    run.write(figures)
    run.plot()
    return figures


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="embedder")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
