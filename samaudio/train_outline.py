"""Train what draws the outline of a clicked object (`samaudio.visual.outline`), in the drawn world; minutes on a CPU.

    python -m samaudio.train_outline pictures=pictures data.manifests=[PATH/manifest.jsonl] folder=runs/outline

Running the same command again resumes; ``init=FOLDER`` goes on from an outline network. The result is
``<folder>/model``; as ``outline/`` in a model's folder it is used by `samaudio.load`. Objects, sounding or not, are
clicked at a random point and seen at a random size, mostly with what moves there. Films are drawn once and learned from
many times, since drawing takes longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import torch
import torch.nn.functional as F_
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from peav.errors import UserError
from peav.train_codec import open_stores
from peav.training import Ema, Loop, Run, as_dict, batches, descend, to_device

from .drawn import DrawnFilms, Recipe, open_pictures
from .drawn.films import DrawnFilm
from .drawn.views import SEEN
from .train_pulse import Memory
from .visual.motion import flow_between
from .visual.outline import SIDE, Outline, OutlineConfig, stirred, view

SMALLEST = 0.6  # times its extent that a view of an object shows at least: too near, which its fit has to say
STILL = 0.15  # chance that nothing is known of how things move


class Clicks:
    """Batch number to clicks: ``views [B, 7 or 4, SIDE, SIDE]``, ``masks [B, SIDE, SIDE]`` of 0 and 1, and
    ``beyond [B]``, how much of the object lies outside of its view, in pixels of it."""

    def __init__(self, films: DrawnFilms, per_batch: int, largest: float, motion: bool, seed: int):
        self.films, self.per_batch, self.largest, self.motion, self.seed = films, per_batch, largest, motion, seed

    def __call__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, 5, number))
        rows: list[tuple[np.ndarray, np.ndarray, float]] = []
        for i in range(number * self.per_batch, (number + 1) * self.per_batch):
            rows += list(self._clicks(self.films[i], rng))
        if not rows:  # everything was out of sight
            return self(number + 1_000_003)
        views, masks, beyond = zip(*rows, strict=True)
        return {"views": torch.from_numpy(np.stack(views)).half(), "masks": torch.from_numpy(np.stack(masks)).half(),
                "beyond": torch.tensor(beyond, dtype=torch.float32)}  # fmt: skip

    def _clicks(self, film: DrawnFilm, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        frames = film.frames.permute(0, 2, 3, 1).numpy()
        for masks in torch.cat((film.masks, film.silent_masks)).numpy():
            n = int(rng.integers(len(masks)))
            mask = masks[n]
            if mask.sum() < SEEN:
                continue
            x, y, extent = clicked(mask, rng)
            side = max(8, round(extent * float(np.exp(rng.uniform(np.log(SMALLEST), np.log(self.largest))))))
            truth = view(np.repeat(255 * mask[..., None].astype(np.uint8), 3, -1), x, y, side)[0] > 0
            scale = (SIDE / side) ** 2
            motion = self._motion(frames, n, rng) if self.motion else None
            beyond = max(0.0, mask.sum() * scale - truth.sum())
            yield view(frames[n], x, y, side, motion), truth.astype(np.float32), beyond

    @staticmethod
    def _motion(frames: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """What is known of how things move at picture ``n``: from there to the one after it, or before."""
        beside = n + 1 if n + 1 < len(frames) else n - 1
        flow = None
        if beside >= 0 and rng.random() >= STILL:
            flow = flow_between(frames[n], frames[beside])
        return stirred(flow, *frames.shape[1:3])


def clicked(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """A point on the object ``[H, W]``, as people click: seldom at its edge; and its longer side in pixels."""
    import cv2

    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= rng.uniform(0.2, 0.7) * depth.max())
    at = int(rng.integers(len(rows)))
    where = np.argwhere(mask)
    extent = float((where.max(0) - where.min(0) + 1).max())
    return float(columns[at]) + 0.5, float(rows[at]) + 0.5, extent


def shared(logits: Tensor, masks: Tensor, beyond: Tensor) -> Tensor:
    """Intersection over union ``[B]`` of what is drawn and the whole object, also where its view does not show it."""
    drawn, true = logits > 0, masks > 0.5
    both, either = ((a).sum((1, 2)).float() for a in (drawn & true, drawn | true))
    return both / (either + beyond).clamp_min(1)


def losses(outline: Outline, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross entropy of pixels and overlap (Dice; Milletari, Navab and Ahmadi, 2016) of the mask, and of how well it
    fits."""
    logits, fit = outline(batch["views"].float().contiguous(memory_format=torch.channels_last))
    logits, fit, masks = logits.float(), fit.float(), batch["masks"].float()
    odds = logits.sigmoid()
    dice = 1 - (2 * (odds * masks).sum((1, 2)) + 1) / ((odds + masks).sum((1, 2)) + 1)
    fits = shared(logits.detach(), masks, batch["beyond"])
    return {"pixels": F_.binary_cross_entropy_with_logits(logits, masks), "overlap": dice.mean(),
            "fit": F_.binary_cross_entropy_with_logits(fit, fits)}  # fmt: skip


@torch.inference_mode()
def validate(outline: Outline, held_out: dict[str, Tensor]) -> dict[str, float]:
    """Mean intersection over union with the whole object; how far from it ``fit`` is on the average; and the share of
    clicks that fail, below 0.4."""
    logits, fit = outline(held_out["views"].float())
    found = shared(logits, held_out["masks"], held_out["beyond"])
    return {"valid/iou": float(found.mean()), "valid/failed": float((found < 0.4).float().mean()),
            "valid/fit_error": float((fit.sigmoid() - found).abs().mean())}  # fmt: skip


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    recipe = Recipe(**as_dict(config.recipe))
    recipe = replace(recipe, alike=0.0, sound=replace(recipe.sound, seconds=config.seconds))
    stores = open_stores(config, run, config.sample_rate)
    outline = Outline.load(config.init) if config.init else Outline(OutlineConfig(**as_dict(config.outline)))
    motion = outline.config.motion
    if motion != bool(config.outline.motion):
        raise UserError(f"{config.init} was made with motion: {motion}; give outline.motion={str(motion).lower()} too")

    def clicks(split: int, seed: int, count: int) -> Clicks:
        pictures = open_pictures(config.pictures, ("train", "valid")[split])
        return Clicks(DrawnFilms(stores[split], pictures, recipe, seed), count, config.largest, motion, seed)

    outline = outline.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(outline.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=loop.lr, weight_decay=loop.weight_decay)
    ema = Ema(outline, loop.ema)
    if run.resume(model=outline, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    held_out = to_device(clicks(1, 2**31 - 1, config.data.valid_films)(0), run.device)
    memory = Memory(config.memory)
    for batch in batches(clicks(0, loop.seed, config.films_per_step), run):
        if run.done:
            break
        memory.add(batch)
        some = to_device(memory.some(loop.batch_size), run.device)
        outline.train()
        with run.autocast():
            terms = losses(outline, some)
        loss = sum(terms.values())
        norm = descend(run, loss.backward, optimizer, parameters, ema, outline)  # type: ignore[union-attr]
        run.track(terms | {"loss": loss, "gradient": norm})
        if run.step % loop.valid_every == 0:
            with ema.swapped(outline):
                run.write(validate(outline.eval(), held_out))
        if run.save_due():
            run.save(model=outline, optimizer=optimizer, ema=ema)
    run.save(model=outline, optimizer=optimizer, ema=ema)
    with ema.swapped(outline):
        figures = validate(outline.eval(), held_out)
        if run.rank == 0:
            outline.save(Path(run.folder) / "model")
    run.write(figures)
    run.plot()
    return figures


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="outline")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
