"""Train the DAC-VAE codec.

    python -m peav.train_codec data.manifests=[PATH/manifest.jsonl] folder=runs/codec
    python -m peav.train_codec +debug=codec                     # a minute on a CPU, synthesised data
    torchrun --nproc-per-node 8 -m peav.train_codec ...         # many GPUs

Running the same command again resumes. The result is ``<folder>/model``, in the format of ``DACVAE.from_pretrained``.

Losses: signal-to-error ratio of the waveform, multi-resolution STFT magnitudes (Yamamoto et al.,
arXiv 1910.11480), additivity (the latent of a sum is the sum of the latents, which is what lets a mask on a latent
separate) and the divergence of the Gaussian bottleneck.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from .clips import ClipStore
from .codec import DACVAE, CodecConfig, lapped_init_
from .toy import make_pool
from .tracks import TrackSampler
from .training import Ema, Loop, Run, as_dict, batches, descend, first_alone, to_device


def stft_loss(estimate: Tensor, target: Tensor, sizes: tuple[int, ...] = (128, 512, 2048)) -> Tensor:
    """Spectral convergence plus log-magnitude L1, mean over window sizes; waveforms ``[B, T]``."""
    total = estimate.new_zeros(())
    for size in sizes:
        window = torch.hann_window(size, device=target.device)
        a, b = (torch.stft(x.float(), size, size // 4, window=window, return_complex=True).abs()
                for x in (estimate, target))
        total = total + (a - b).norm() / b.norm().clamp_min(1e-6)
        total = total + ((a + 1e-4).log() - (b + 1e-4).log()).abs().mean()
    return total / len(sizes)


def open_stores(config: DictConfig, run: Run, sample_rate: int) -> tuple[ClipStore, ClipStore]:
    """Train and valid store of ``config.data``; a toy pool is synthesised when ``data.toy`` is set."""
    manifests = list(config.data.manifests)
    if config.data.toy:
        folder = Path(config.data.cache) / f"toy-{sample_rate}"
        manifests = [first_alone(run, lambda: make_pool(folder, sample_rate=sample_rate))]
    train, valid = first_alone(
        run, lambda: [ClipStore(manifests, sample_rate, config.data.cache, split) for split in ("train", "valid")])
    print(f"{len(train)} training clips, {len(valid)} validation clips, {len(train.by_label())} labels", flush=True)
    return train, valid


class CodecBatches:
    """Batch number to ``a, b [B, 1, T]``: two tracks each, at random levels."""

    def __init__(self, store: ClipStore, config: DictConfig, seed: int):
        self.tracks = TrackSampler(store, 0.5, config.data.change)
        self.T = round(config.data.seconds * store.sample_rate)
        self.batch_size, self.seed = config.loop.batch_size, seed

    def __call__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, number))
        def one() -> np.ndarray:
            x = self.tracks.track(self.tracks.draw_label(rng), self.T, rng).samples
            return x * (10 ** (rng.uniform(-25, 0) / 20) * 0.7 / max(np.abs(x).max(), 1e-6))
        pair = np.stack([[one(), one()] for _ in range(self.batch_size)]).astype(np.float32)
        return {"a": torch.from_numpy(pair[:, :1]), "b": torch.from_numpy(pair[:, 1:])}


def losses(codec: DACVAE, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named loss terms of a batch; weighted in ``weights`` of the config."""
    a, b = batch["a"], batch["b"]
    mixture = a + b
    posterior = codec.encode(mixture)
    out = codec.decode(posterior.sample(), length=mixture.shape[-1])
    parts = codec.latents(a) + codec.latents(b)
    energy = mixture.square().mean((1, 2)).clamp_min(1e-8)
    return {
        "signal": ((out - mixture).square().mean((1, 2)) / energy).add(1e-4).log10().mean(),
        "stft": stft_loss(out[:, 0], mixture[:, 0]),
        "additive": ((posterior.mean - parts).square().mean((1, 2)) / energy).add(1e-4).log10().mean(),
        "kl": posterior.kl() / codec.config.codebook_dim,
    }


@torch.inference_mode()
def validate(codec: DACVAE, batch: dict[str, Tensor]) -> dict[str, float]:
    """Signal-to-error ratio in dB of reconstructions through the latent mean, and of latent sums."""
    x = batch["a"] + batch["b"]
    y = codec.decode(codec.latents(x), length=x.shape[-1])
    summed = codec.decode(codec.latents(batch["a"]) + codec.latents(batch["b"]), length=x.shape[-1])
    def ratio(out: Tensor) -> float:
        return float((10 * (x.square().sum(-1) / (out - x).square().sum(-1).clamp_min(1e-12)).log10()).mean())
    return {"valid/snr_db": ratio(y), "valid/additive_snr_db": ratio(summed)}


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    codec = DACVAE(CodecConfig.from_dict(as_dict(config.codec)))
    if config.init == "lapped":
        lapped_init_(codec, gain=config.gain)
    elif config.init:
        codec.load_state_dict(DACVAE.from_pretrained(config.init).state_dict())
    codec.to(run.device).train()
    train_store, valid_store = open_stores(config, run, codec.config.sample_rate)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=loop.lr, betas=(0.8, 0.99), weight_decay=loop.weight_decay)
    ema = Ema(codec, loop.ema)
    if run.resume(model=codec, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    held_out = to_device(CodecBatches(valid_store, config, seed=-1 % 2**31)(0), run.device)
    for batch in batches(CodecBatches(train_store, config, loop.seed), run):
        if run.done:
            break
        with run.autocast():
            terms = losses(codec, to_device(batch, run.device))
        loss = sum(config.weights[name] * value for name, value in terms.items())
        norm = descend(run, loss.backward, optimizer, list(codec.parameters()), ema, codec)
        run.track(terms | {"loss": loss, "gradient": norm})
        if run.step % loop.valid_every == 0:
            with ema.swapped(codec):
                run.write(validate(codec, held_out))
        if run.save_due():
            run.save(model=codec, optimizer=optimizer, ema=ema)
    run.save(model=codec, optimizer=optimizer, ema=ema)
    with ema.swapped(codec):
        figures = validate(codec, held_out)
        if run.rank == 0:
            codec.save_pretrained(run.folder / "model", dtype=torch.float16)
    run.write(figures)
    run.plot()
    return figures


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="codec")
def main(config: DictConfig) -> None:
    fit(config)


if __name__ == "__main__":
    main()
