"""Train the frame encoder on single drawn pictures: what an object is, where it is and how it lies.

    python -m samaudio.train_vision pictures=pictures data.manifests=[PATH/manifest.jsonl] folder=runs/vision

Running the same command again resumes. The result is ``<folder>/model/vision.safetensors``, from which
`samaudio.train_video` starts. Recognising a picture takes many pictures and no sound; movement and sound, which need
films, are learned afterwards with features that know already where an object is.
"""

from __future__ import annotations

import random
from pathlib import Path

import hydra
import torch
import torch.nn.functional as F_
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from peav.films import as_images
from peav.train_codec import open_stores
from peav.training import Ema, Loop, Run, as_dict, batches, descend, to_device
from peav.vision import VisionConfig, VisionTransformer

from .drawn import DrawnFilms, Recipe, open_pictures
from .drawn.views import GEOMETRY, NAMES, StillBatches, stills

EYES = "vision."
_REMEMBERED = 150  # batches for replay


class Student(nn.Module):
    """A frame encoder and the questions that it learns from; the questions are thrown away afterwards."""

    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        self.vision = VisionTransformer(vision)
        self.thing = nn.Linear(vision.output_dim, len(NAMES) + 1)
        self.seen = nn.Linear(vision.output_dim, len(NAMES))
        self.geometry = nn.Linear(vision.output_dim, GEOMETRY)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[V, D]`` of images ``[V, 3, h, w]`` uint8: unit vectors, as the video tower gets them, scaled to
        entries of order one."""
        features = F_.normalize(self.vision(as_images(images)).float(), dim=-1)
        return features * features.shape[-1] ** 0.5


def losses(student: Student, batch: dict, run: Run) -> dict[str, Tensor]:
    """Named losses: ``thing`` of a masked object, ``seen`` in a whole picture, ``geometry`` of an object."""
    with run.autocast():
        one, whole = student(batch["one"]), student(batch["all"])
    return {"thing": F_.cross_entropy(student.thing(one), batch["thing"], label_smoothing=0.05),
            "seen": F_.binary_cross_entropy_with_logits(student.seen(whole), batch["things"], reduction="sum")
            / len(whole), "geometry": F_.smooth_l1_loss(student.geometry(one), batch["geometry"], beta=0.1)}


@torch.inference_mode()
def validate(student: Student, held_out: list[dict], device: torch.device) -> dict[str, float]:
    """In an unseen drawing style: share of objects named right (``top1``), recall of the things in whole pictures when
    as many are named as there are (``seen``), and the mean error of geometry (``geometry``)."""
    right, total, hits, there, errors = 0, 0, 0, 0, []
    for batch in held_out:
        batch = to_device(batch, device)
        one = student(batch["one"])
        named = batch["thing"] < len(NAMES)
        right += int((student.thing(one).argmax(1) == batch["thing"])[named].sum())
        total += int(named.sum())
        errors.append(float((student.geometry(one) - batch["geometry"]).abs().mean()))
        for scores, truth in zip(student.seen(student(batch["all"])), batch["things"], strict=True):
            count = int(truth.sum())
            if count:
                hits += int(truth[scores.topk(count).indices].sum())
                there += count
    return {"valid/top1": right / max(total, 1), "valid/seen": hits / max(there, 1),
            "valid/geometry": sum(errors) / len(errors)}


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    vision = VisionConfig.from_dict(as_dict(config.vision))
    student = Student(vision)
    if config.init:
        start_from(student, config.init)
    student.to(run.device).train()
    stores = open_stores(config, run, config.data.sample_rate)
    makes = []
    for store, split, seed in zip(stores, ("train", "valid"), (loop.seed, 2**31 - 1), strict=True):
        films = DrawnFilms(store, open_pictures(config.pictures, split), Recipe(size=vision.image_size), seed)
        makes.append(StillBatches(
            stills(films), loop.batch_size, tuple(config.close_up), vision.image_size, seed))
    parameters = list(student.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": loop.weight_decay},
         {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}], betas=(0.9, 0.98))
    ema = Ema(student, loop.ema)
    if run.resume(student=student, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    held_out = [makes[1](i) for i in range(config.data.valid_batches)]
    past: list[dict] = []
    for fresh in batches(makes[0], run):
        if run.done:
            break
        past = past[-_REMEMBERED:] + [fresh]
        for batch in [fresh, *random.choices(past, k=config.replay)]:
            terms = losses(student, to_device(batch, run.device), run)
            loss = sum(config.weights[name] * term for name, term in terms.items())
            norm = descend(run, loss.backward, optimizer, parameters, ema, student)
            run.track({"loss": loss, "gradient": norm} | terms)
        if run.step % loop.valid_every == 0:
            with ema.swapped(student):
                run.write(validate(student.eval(), held_out, run.device))
            student.train()
        if run.save_due():
            run.save(student=student, optimizer=optimizer, ema=ema)
    run.save(student=student, optimizer=optimizer, ema=ema)
    with ema.swapped(student):
        figures = validate(student.eval(), held_out, run.device)
        if run.rank == 0:
            save(student, run.folder / "model")
    run.write(figures)
    run.plot()
    return figures


def save(student: Student, folder: Path) -> None:
    """Write ``vision.safetensors``, and ``questions.safetensors`` to learn on from, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().half().contiguous().cpu() for name, value in student.state_dict().items()}
    eyes = {name.removeprefix(EYES): value for name, value in state.items() if name.startswith(EYES)}
    save_file(eyes, folder / "vision.safetensors")
    save_file({k: v for k, v in state.items() if not k.startswith(EYES)}, folder / "questions.safetensors")


def load(folder: str | Path, config: VisionConfig) -> VisionTransformer:
    """The frame encoder that `save` wrote, in single precision."""
    vision = VisionTransformer(config)
    vision.load_state_dict({k: v.float() for k, v in load_file(Path(folder) / "vision.safetensors").items()})
    return vision


def start_from(student: Student, folder: str | Path) -> None:
    """Go on with what `save` wrote."""
    student.vision.load_state_dict(load(folder, student.vision.config).state_dict())
    questions = load_file(Path(folder) / "questions.safetensors")
    student.load_state_dict(student.state_dict() | {name: value.float() for name, value in questions.items()})


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="vision")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
