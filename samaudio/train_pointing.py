"""Teach a separator what was pointed at: the few weights that read a look in place of words.

    python -m samaudio.train_pointing init=samaudio/weights/mini embedder=runs/video/model pictures=pictures \\
        data.manifests=[PATH/manifest.jsonl] folder=runs/pointing

Running the same command again resumes. The result is ``<folder>/model``, what ``samaudio.load`` opens. Everything that
reads words stays as it was, bit by bit, and so does the Judge. Objects of drawn films ask for their own sound; silent
ones ask for nothing that is there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from peav import checkpoints as peav_checkpoints
from peav.codec import DACVAE
from peav.errors import UserError
from peav.mask import MaskConfig, MaskSeparator, hints_of
from peav.train_codec import open_stores
from peav.training import Ema, Loop, Run, as_dict, batches, descend, to_device

from . import checkpoints
from .drawn import DrawnFilms, Recipe, open_pictures
from .drawn.views import damaged, look_at, well_seen
from .metrics import improvement
from .mixtures import activity
from .model import MaskModel
from .project import project, window_length
from .train import losses
from .train_video import look, on_tokens

NEW = ("seen_query.", "seen_hints.")


class PointedBatches:
    """Batch number to films and what is pointed at in them, two objects in each.

    ``mixture [B, T]``, ``target [2 B, T]``, ``activity [2 B, F]``, ``views [2 B, N, 3, h, w]`` uint8; both objects
    of a film lie next to each other.
    """

    def __init__(self, films: DrawnFilms, number: int, size: tuple[int, int], hop: int, seed: int, silent: float):
        self.films, self.number, self.size, self.hop, self.seed = films, number, size, hop, seed
        self.silent = silent  # chance that one of the two is a silent one, where there is one

    def __call__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, 2, number))
        rows: dict[str, list[Tensor]] = {name: [] for name in ("mixture", "target", "activity", "views")}
        index = number * self.number * 4
        while len(rows["mixture"]) < self.number:
            film = self.films[index]
            index += 1
            masks = torch.cat((film.masks, film.silent_masks))
            seen = well_seen(masks)
            K = len(film.stems)
            sounding = [k for k in rng.permutation(K) if seen[k]]
            silent = [k for k in range(K, len(masks)) if seen[k]]
            if silent and (len(sounding) < 2 or rng.random() < self.silent):
                sounding = [*sounding[:1], silent[0]]
            if len(sounding) < 2:
                continue
            rows["mixture"].append(film.samples)
            for k in sounding[:2]:
                target = film.stems[k] if k < K else torch.zeros_like(film.stems[0])
                rows["target"].append(target)
                rows["activity"].append(torch.from_numpy(activity(target.numpy(), self.hop)))
                rows["views"].append(look_at(film, damaged(masks[k], rng), rng, self.size)[0])
        return {name: torch.stack(values) for name, values in rows.items()}


@torch.no_grad()
def see(model: MaskModel, latent: Tensor, views: Tensor, run: Run) -> tuple[Tensor, Tensor]:
    """What the separator gets of objects: unit vectors ``[Q, E]`` and hints ``[Q, 2E, N]``.

    Args:
        latent: ``[M, D, F]`` of the mixtures, ``Q / M`` objects of each next to each other.
        views: uint8 ``[Q, N, 3, h, w]``.
    """
    embedder = model.embedder
    assert embedder.video is not None
    with run.autocast():
        seen = embedder.video(look(embedder, views, run))
        heard = embedder.audio(latent)
    frames = embedder.head("frame", heard.frames.float()).repeat_interleave(len(views) // len(latent), 0)
    shown = on_tokens(embedder.head("video_frame", seen.frames.float()), frames.shape[1])
    return embedder.head("video", seen.pooled.float()), hints_of(frames, shown)


@torch.inference_mode()
def validate(model: MaskModel, held_out: dict[str, list[dict]], window: Tensor, run: Run) -> dict[str, float]:
    """Mean SI-SDRi in dB of the object that is pointed at, and of the other one, by kind of film."""
    figures: dict[str, float] = {}
    for kind, films in held_out.items():
        right, other = [], []
        for batch in films:
            batch = to_device(batch, run.device)
            mixture, target = batch["mixture"], batch["target"]
            latent = model.codec.latents(mixture[:, None])
            query, hints = see(model, latent, batch["views"], run)
            out = model.separator(latent.repeat_interleave(2, 0), None, seen=(query, hints))
            mixture = mixture.repeat_interleave(2, 0)
            decoded = model.codec.decode(out.target[:, 0], length=mixture.shape[-1])[:, 0]
            stems = project(mixture, decoded, mixture - decoded, window)
            right.append(improvement(stems, target, mixture))
            other.append(improvement(stems.unflatten(0, (-1, 2)).flip(1).flatten(0, 1), target, mixture))
        gains = torch.cat(right)
        figures |= {f"valid/{kind}": float(gains.mean()), f"valid/{kind}_other": float(torch.cat(other).mean()),
                    f"valid/{kind}_worse": float((gains < 0).float().mean())}
    return figures


def build(config: DictConfig, device: torch.device) -> MaskModel:
    """The model of ``init`` with the embedder that sees, and a separator that reads looks as it reads words."""
    codec = DACVAE.from_pretrained(Path(config.init) / "codec")
    embedder = peav_checkpoints.load(config.embedder, codec_folder=Path(config.init) / "codec")
    if not (embedder.config.sees and embedder.has_frames):
        raise UserError(f"embedder={config.embedder}: does not see; train it with samaudio.train_video")
    old = checkpoints.load_model(config.init, "cpu")
    separator = MaskSeparator(MaskConfig(**old.separator.config.to_dict() | {"sight": True}))
    state = old.separator.state_dict()
    separator.load_state_dict(separator.state_dict() | state)
    if not old.separator.config.sight:
        separator.look_like_words()
    settings = old.settings | {"close_up": list(config.close_up)}
    model = MaskModel(codec, embedder, separator, settings, old.pulse).requires_grad_(False).eval()
    for name, parameter in separator.named_parameters():
        parameter.requires_grad_(name.startswith(NEW))
    return model.to(device)


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    model = build(config, run.device)
    separator, codec = model.separator, model.codec
    stores = open_stores(config, run, model.sample_rate)
    window = torch.hann_window(window_length(model.sample_rate), device=run.device)
    recipe = Recipe(**as_dict(config.recipe))

    def films(split: int, seed: int, **changes) -> PointedBatches:
        pictures = open_pictures(config.pictures, ("train", "valid")[split])
        drawn = DrawnFilms(stores[split], pictures, replace(recipe, **changes), seed)
        return PointedBatches(drawn, loop.batch_size // 2, tuple(config.close_up), codec.hop_length, seed,
                              config.silent if split == 0 else 0.0)  # fmt: skip

    parameters = [p for p in separator.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=loop.lr, betas=(0.9, 0.98), weight_decay=loop.weight_decay)
    ema = Ema(separator, loop.ema)
    if run.resume(model=separator, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    kinds: dict[str, dict[str, Any]] = {"pairs": {"alike": 0.0, "silent": (1.0,)}, "alike": {"alike": 1.0}}
    held_out = {kind: [films(1, 2**31 - 1, **changes)(i) for i in range(config.data.valid_batches)]
                for kind, changes in kinds.items()}  # fmt: skip
    run.write(validate(model, held_out, window, run))
    for batch in batches(films(0, loop.seed), run):
        if run.done:
            break
        batch = to_device(batch, run.device)
        with torch.no_grad():
            latent = codec.latents(batch["mixture"][:, None])
        seen = see(model, latent, batch["views"], run)
        with run.autocast():
            out = separator(latent.repeat_interleave(2, 0), None, seen=seen)
            terms = losses(codec, out, batch, batch["mixture"].repeat_interleave(2, 0), window)
        loss = sum(config.weights[name] * value for name, value in terms.items())
        norm = descend(run, loss.backward, optimizer, parameters, ema, separator)
        run.track(terms | {"loss": loss, "gradient": norm})
        if run.step % loop.valid_every == 0:
            with ema.swapped(separator):
                run.write(validate(model, held_out, window, run))
        if run.save_due():
            run.save(model=separator, optimizer=optimizer, ema=ema)
    run.save(model=separator, optimizer=optimizer, ema=ema)
    with ema.swapped(separator):
        figures = validate(model, held_out, window, run)
        if run.rank == 0:
            checkpoints.save_model(model, Path(run.folder) / "model")
    run.write(figures)
    run.plot()
    return figures


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="pointing")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
