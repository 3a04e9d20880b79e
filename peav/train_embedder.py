"""Train the embedder: audio tower and text heads over a frozen codec and a frozen sentence encoder.

    python -m peav.train_embedder codec=runs/codec/model data.manifests=[PATH/manifest.jsonl] folder=runs/embedder
    python -m peav.train_embedder +debug=embedder               # a minute on a CPU, after +debug=codec

Running the same command again resumes. The result is ``<folder>/model``, for ``peav.checkpoints.load``. Two
losses share the tower: whether a text names a clip, and whether it is true of each 40 ms of it (see `peav.scenes`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hydra
import torch
import torch.nn.functional as F_
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from . import captions, checkpoints
from .codec import DACVAE
from .config import PEAVConfig
from .errors import UserError
from .model import PEAV
from .scenes import NO, UNSURE, YES, SceneBatches, SceneRecipe
from .text import sentence_encoder
from .train_codec import open_stores
from .training import Ema, Loop, Run, as_dict, batches, descend, to_device
from .transformer import TransformerConfig


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


def pairwise(logits: Tensor, truth: Tensor) -> Tensor:
    """Sigmoid loss of texts ``[B, Q]`` or of texts over tokens ``[B, Q, N]``: summed over texts, mean over the rest.

    ``-logsigmoid(y * logits)`` with y from ``truth``: +1 for `YES`, -1 for `NO`; `UNSURE` is left out. The form of
    SigLIP (arXiv 2303.15343) and, over tokens, of PE-A-Frame (arXiv 2512.19687) with the texts of all clips.
    """
    signs = torch.where(truth == YES, 1.0, -1.0)
    return -(F_.logsigmoid(signs * logits) * (truth != UNSURE)).sum(1).mean()


def losses(model: PEAV, latent: Tensor, text: Tensor, batch: dict, run: Run) -> dict[str, Tensor]:
    """Named losses of a batch: ``clip`` whether texts name a clip, ``frame`` whether they are true of its tokens."""
    with run.autocast():
        audio = model.audio(latent)
        clips, frames = model.head("audio", audio.pooled), model.head("frame", audio.frames)
        named, true_of = model.text_embedding(text), model.text_embedding(text, "frame")
    clip_logits = model.logits("text_audio", clips.float(), named.float())
    return {"clip": pairwise(clip_logits, batch["named"]),
            "frame": pairwise(model.frame_pairs(frames.float(), true_of.float()), batch["active"])}


@torch.inference_mode()
def validate(
    model: PEAV, sentences: SentenceCache, plain: list[dict], mixed: list[dict], device: torch.device
) -> dict[str, float]:
    """Figures on held-out recordings.

    ``top1``, ``top5``: single sounds named right among all their labels. ``frame_auroc``: in scenes of two sounds,
    the probability that a token and a text that is true of it score above a token and a text that is not.
    """
    labels = sorted({label for batch in plain for label in batch["labels"]})
    text = model.text_embedding(sentences(labels).to(device))
    first, five, total, areas = 0.0, 0.0, 0, []
    for batch in plain:
        audio = model.audio(model.codec.latents(batch["audio"].to(device)[:, None]))
        order = (model.head("audio", audio.pooled) @ text.T).argsort(dim=1, descending=True).tolist()
        for label, row in zip(batch["labels"], order, strict=True):
            # "hi-hat" for a closed hi-hat is not wrong, so overlapping labels count as right.
            hits = [captions.overlap(label, labels[i]) for i in row[:5]]
            first, five, total = first + hits[0], five + any(hits), total + 1
    for batch in mixed:
        audio = model.audio(model.codec.latents(batch["audio"].to(device)[:, None]))
        words = model.text_embedding(sentences(batch["phrases"]).to(device), "frame")
        logits = model.frame_pairs(model.head("frame", audio.frames), words).cpu()
        areas.append(auroc(logits[batch["active"] == YES], logits[batch["active"] == NO]))
    return {"valid/top1": first / total, "valid/top5": five / total, "valid/frame_auroc": sum(areas) / len(areas)}


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive scores above a negative (Mann-Whitney), ties counting half."""
    ordered = negative.sort().values
    below, up_to = torch.searchsorted(ordered, positive), torch.searchsorted(ordered, positive, right=True)
    return float((below + up_to).double().mean() / (2 * len(ordered)))


def start_from(model: PEAV, folder: str | None) -> None:
    """Take over what fits of an earlier model; what it lacks (a new head) keeps its fresh start."""
    if folder is None:
        return
    earlier, own = checkpoints.load(folder).state_dict(), model.state_dict()
    fits = {name: value for name, value in earlier.items() if name in own and own[name].shape == value.shape}
    if not any(name.startswith("audio.transformer.") for name in fits):
        raise UserError(f"init={folder}: its audio tower has other sizes; set tower as it is there, or drop init")
    model.load_state_dict(own | fits)
    if model.config.frames and "frame_head.projection.weight" not in fits:
        # The frame heads begin as the clip's, which know the sounds already, only not when.
        for new, old in (("frame_head", "audio_head"), ("text_frame_head", "text_audio_head")):
            model.get_submodule(new).load_state_dict(model.get_submodule(old).state_dict())
    print(f"started from {folder}: {len(fits)} of {len(own)} tensors", flush=True)


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    codec = DACVAE.from_pretrained(config.codec)
    settings = PEAVConfig(codec=codec.config, audio=TransformerConfig(**config.tower), **config.embedder)
    model = PEAV(settings)
    start_from(model, config.init)
    model.use_codec(codec)
    model.to(run.device).train()
    train_store, valid_store = open_stores(config, run, model.sample_rate)
    sentences = SentenceCache()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(groups(model, loop), betas=(0.9, 0.98))
    ema = Ema(model, loop.ema)
    if run.resume(model=model, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    recipe = SceneRecipe(**as_dict(config.recipe))
    token = settings.token_frames * codec.config.hop_length
    plain = replace(recipe, change=0.0, behind=0.0)
    make_valid = SceneBatches(valid_store, plain, loop.batch_size, token, 2**31 - 1)
    make_mixed = SceneBatches(valid_store, replace(plain, behind=1.0), loop.batch_size, token, 2**31 - 2)
    held_plain, held_mixed = ([make(i) for i in range(config.data.valid_batches)] for make in (make_valid, make_mixed))
    for batch in batches(SceneBatches(train_store, recipe, loop.batch_size, token, loop.seed), run):
        if run.done:
            break
        batch = to_device(batch, run.device)
        with torch.no_grad():
            latent = hide(model.codec.latents(batch["audio"][:, None]), config.data.hide)
        terms = losses(model, latent, sentences(batch["phrases"]).to(run.device), batch, run)
        loss = sum(config.weights[name] * term for name, term in terms.items())
        norm = descend(run, loss.backward, optimizer, parameters, ema, model)
        run.track({"loss": loss, "gradient": norm, "scale": model.scalar("text_audio_logit_scale")} | terms)
        if run.step % loop.valid_every == 0:
            with ema.swapped(model):
                run.write(validate(model.eval(), sentences, held_plain, held_mixed, run.device))
            model.train()
        if run.save_due():
            run.save(model=model, optimizer=optimizer, ema=ema)
    run.save(model=model, optimizer=optimizer, ema=ema)
    with ema.swapped(model):
        figures = validate(model.eval(), sentences, held_plain, held_mixed, run.device)
        if run.rank == 0:
            checkpoints.save(model, Path(run.folder) / "model", dtype=torch.float16)
    run.write(figures)
    run.plot()
    return figures


def groups(model: PEAV, loop: Loop) -> list[dict]:
    """Weights, and the few scalars of the losses: these are not pulled to zero, and are stored as they are, not as
    logarithms, so they learn faster by about their size."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    scalars = [p for name, p in named if "_logit_" in name]
    weights = [p for name, p in named if "_logit_" not in name]
    return [{"params": weights, "weight_decay": loop.weight_decay, "faster": 1.0},
            {"params": scalars, "weight_decay": 0.0, "faster": 10.0}]


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="embedder")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
