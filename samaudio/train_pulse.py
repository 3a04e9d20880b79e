"""Train what reads loudness off movement (`samaudio.pulse`), in the drawn world; minutes on a CPU.

    python -m samaudio.train_pulse pictures=pictures data.manifests=[PATH/manifest.jsonl] folder=runs/pulse

Running the same command again resumes. The result is ``<folder>/model``; as ``pulse/`` in a model's folder it is used
by `samaudio.load`. An object's contour has to find the loudness of its own stem among those of the other objects of
the batch (InfoNCE, arXiv 1807.03748). Films are drawn once and learned from many times, since drawing takes longest.
"""

from __future__ import annotations

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
from .drawn.views import damaged, well_seen
from .pulse import RATE, Pulse, PulseConfig, agreement
from .train_video import recall
from .visual.geometry import geometry


class Movements:
    """Batch number to ``geometry [M, N, 9]`` and ``loudness [M, N]`` of the sounding objects of some films."""

    def __init__(self, films: DrawnFilms, per_batch: int, seed: int):
        self.films, self.per_batch, self.seed = films, per_batch, seed

    def __call__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, 3, number))
        ways, loudness = [], []
        for i in range(number * self.per_batch, (number + 1) * self.per_batch):
            film = self.films[i]
            for masks, loud in zip(film.masks, film.loudness, strict=True):
                if well_seen(masks):
                    ways.append(geometry(film.frames, damaged(masks, rng)))
                    loudness.append(loud.float())
        return {"geometry": torch.stack(ways), "loudness": torch.stack(loudness)}


class Memory:
    """The last ``size`` objects, to learn from again."""

    def __init__(self, size: int):
        self.size, self.seen, self.held = size, 0, dict[str, Tensor]()

    def add(self, batch: dict[str, Tensor]) -> None:
        """Take in tensors of some objects each; they take the places of the oldest."""
        count = len(next(iter(batch.values())))
        places = torch.arange(self.seen, self.seen + count) % self.size
        self.seen += count
        for name, value in batch.items():
            if name not in self.held:
                self.held[name] = value.new_empty(self.size, *value.shape[1:])
            self.held[name][places] = value

    def some(self, count: int) -> dict[str, Tensor]:
        """At most ``count`` of the objects, at random, as they were given."""
        total = min(self.seen, self.size)
        chosen = torch.randint(total, (count,)) if total > 4 * count else torch.randperm(total)[:count]
        return {name: value[chosen] for name, value in self.held.items()}


@torch.inference_mode()
def validate(pulse: Pulse, held_out: dict[str, Tensor]) -> dict[str, float]:
    """``r1``: objects that find their stem among 50 by movement alone; ``agreement``: correlation with their own."""
    scores = agreement(pulse(held_out["geometry"]), held_out["loudness"])
    return {"valid/r1": recall(scores), "valid/agreement": float(scores.diagonal().mean())}


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    recipe = Recipe(**as_dict(config.recipe))
    if recipe.fps != RATE:
        raise UserError(f"recipe.fps={recipe.fps:g}: films are looked at {RATE:g} times a second; leave it at that")
    stores = open_stores(config, run, config.sample_rate)

    def movements(split: int, seed: int, count: int) -> Movements:
        pictures = open_pictures(config.pictures, ("train", "valid")[split])
        return Movements(DrawnFilms(stores[split], pictures, replace(recipe, alike=0.0), seed), count, seed)

    pulse = Pulse(PulseConfig(**as_dict(config.pulse))).to(run.device)
    scale = torch.nn.Parameter(torch.tensor(5.0, device=run.device))
    parameters = [*pulse.parameters(), scale]
    optimizer = torch.optim.AdamW([{"params": list(pulse.parameters()), "weight_decay": loop.weight_decay},
                                   {"params": [scale], "weight_decay": 0.0, "faster": 5.0}])  # fmt: skip
    ema = Ema(pulse, loop.ema)
    if run.resume(model=pulse, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    held_out = to_device(movements(1, 2**31 - 1, config.data.valid_films)(0), run.device)
    memory = Memory(config.memory)
    for batch in batches(movements(0, loop.seed, config.films_per_step), run):
        if run.done:
            break
        memory.add(batch)
        some = to_device(memory.some(loop.batch_size), run.device)
        pulse.train()
        scores = scale * agreement(pulse(some["geometry"]), some["loudness"])
        loss = F_.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
        norm = descend(run, loss.backward, optimizer, parameters, ema, pulse)
        run.track({"loss": loss, "gradient": norm})
        if run.step % loop.valid_every == 0:
            with ema.swapped(pulse):
                run.write(validate(pulse.eval(), held_out))
        if run.save_due():
            run.save(model=pulse, optimizer=optimizer, ema=ema)
    run.save(model=pulse, optimizer=optimizer, ema=ema)
    with ema.swapped(pulse):
        figures = validate(pulse.eval(), held_out)
        if run.rank == 0:
            pulse.save(Path(run.folder) / "model")
    run.write(figures)
    run.plot()
    return figures


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="pulse")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
