"""Train a PE-AV with all its towers: sound, pictures, both, and three kinds of captions.

    python -m peav.train --config-name peav_pretrain data.manifests=[films/manifest.jsonl] codec=runs/codec/model
    python -m peav.train --config-name peav_finetune data.manifests=[films/manifest.jsonl]
    python -m peav.train +debug=peav                            # toy films: seconds on a CPU, no files needed
    torchrun --nproc-per-node 8 -m peav.train ...               # many GPUs, whose clips are each other's negatives

Running the same command again resumes. The result is ``<folder>/model``, for `peav.load`, its codec inside. What is
trained is in `peav.pairs` and `peav.bestrq`, the format of a manifest in `peav.films`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from . import checkpoints, load
from .codec import DACVAE, CodecConfig, DACEncoder, lapped_init_
from .config import PEAVConfig
from .errors import UserError, shown
from .films import Cut, FilmBatches, FilmFiles, Films, read_films
from .gradient_cache import cached_backward, split_batch
from .inputs import Tokenizer
from .losses import matches
from .model import PEAV
from .pairs import PAIRS
from .system import System, keys_of
from .toy_films import KINDS, ToyFilms
from .train_embedder import SentenceCache
from .training import Ema, Loop, Run, as_dict, batches, descend, to_device


def build(config: DictConfig) -> tuple[PEAV, Path | None]:
    """The model to train, and the folder of its tokenizer if its text tower has one.

    Raises:
        UserError: sizes contradict each other, or a folder is not what it should be.
    """
    if config.init:
        model = load(config.init, device="cpu")
        if not isinstance(model, PEAV):
            raise UserError(f"init={shown(config.init)}: is a PE-A-Frame; start from a PE-AV")
    else:
        codec = _codec(config.codec)
        sizes = as_dict(config.model)
        donor = load(config.vision_from, device="cpu") if config.vision_from else None
        if donor is not None:
            if not isinstance(donor, PEAV) or donor.video is None:
                raise UserError(f"vision_from={shown(config.vision_from)}: has no frame encoder; give one that sees")
            sizes["vision"] = donor.config.to_dict()["vision"]
        try:
            model = PEAV(PEAVConfig.from_dict(sizes | {"codec": codec.config.to_dict()}))
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"model: {shown(error, 200)}") from None
        model.use_codec(codec)
        if donor is not None and donor.video is not None and model.video is not None:
            model.video.vision.load_state_dict(donor.video.vision.state_dict())
    if model.text_model is None:
        return model, None
    if config.tokenizer or model.tokenizer is None:
        model.tokenizer = Tokenizer(Path(config.tokenizer or "."))
    folder = model.tokenizer.folder
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{shown(folder)}: tokenizer.json missing; a text tower needs one, set tokenizer=FOLDER")
    return model, folder


def _codec(given: Any) -> DACEncoder:
    if isinstance(given, str):
        return checkpoints.load_codec(DACEncoder, given)
    try:
        return lapped_init_(DACVAE(CodecConfig.from_dict(as_dict(given))), gain=10.0)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"codec: give a folder, or sizes of a lapped codec ({shown(error, 120)})") from None


def open_films(config: DictConfig, model: PEAV) -> tuple[Films, Films]:
    """Films to train on and held-out ones."""
    vision = model.config.vision
    fixed = model.config.video_frames
    cut = Cut(model.sample_rate, (1, 1) if vision is None else vision.image_size, config.data.seconds,
              fps=None if fixed else config.data.fps, num_frames=fixed)  # fmt: skip
    if config.data.toy:
        return ToyFilms(4 * len(KINDS), cut, seed=0), ToyFilms(len(KINDS), cut, seed=1)
    if not config.data.manifests:
        raise UserError("data.manifests is empty; give a JSONL file of clips, or data.toy=true to try")
    found = {split: [film for path in config.data.manifests for film in read_films(path, split)]
             for split in ("train", "valid")}  # fmt: skip
    for split, films in found.items():
        if not films:
            raise UserError(f"no clip of split {split!r} in {shown(', '.join(config.data.manifests))}")
    return FilmFiles(found["train"], cut), FilmFiles(found["valid"], cut)


@torch.inference_mode()
def validate(
    system: System, embed: Callable[[dict], dict[str, Tensor]], sentences: SentenceCache, held_out: list[dict],
    chunk: int | None,
) -> dict[str, float]:  # fmt: skip
    """Recall at 1 among the held-out clips, for every pair, the mean of both directions; and the mean of all.

    A clip with the same caption counts as found, since nothing could tell them apart.

    Args:
        embed: `System.embed` in the precision of the run.
    """
    system.eval()
    found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for batch in held_out:
        batch = to_device(batch, system.model.device)
        parts = [embed(part) for part in split_batch(system.prepare(batch, sentences), chunk)]
        embeddings = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        keys = keys_of(batch)
        for name in system.pairs.possible(embeddings):
            rows, columns = PAIRS[name].ends
            found.setdefault(name, []).append(
                (embeddings[rows], embeddings[columns], torch.cat((keys[rows], keys[columns]), 1)))
    figures = {}
    for name, parts_of_pair in found.items():
        a, b, key = (torch.cat(part) for part in zip(*parts_of_pair, strict=True))
        scores, right = a @ b.T, matches(key, key)
        hits = [right.gather(1, scores.argmax(1)[:, None]), right.T.gather(1, scores.T.argmax(1)[:, None])]
        figures[f"valid/r1/{name}"] = float(torch.stack(hits).float().mean())
    return figures | {"valid/r1": sum(figures.values()) / len(figures)}


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    dtype = getattr(torch, str(config.save_dtype), None)
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise UserError(f"save_dtype {shown(config.save_dtype)}; choose float16, bfloat16 or float32")
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    model, tokenizer = build(config)
    system = System(model, as_dict(config)).to(run.device).train()
    train_films, valid_films = open_films(config, model)
    make = FilmBatches(train_films, loop.batch_size, system.pairs.names, system.heads, run.world, loop.seed)
    make_valid = FilmBatches(valid_films, loop.batch_size, system.pairs.names, system.heads, seed=2**31 - 1)
    if run.rank == 0:
        print(f"{make.used} of {len(train_films)} training clips, {make_valid.used} of {len(valid_films)} validation "
              f"clips have one of {len(system.pairs.names)} pairs", flush=True)
    parameters = [p for p in system.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(system.groups(loop), lr=loop.lr, betas=(0.9, 0.98))
    ema = Ema(system, loop.ema)
    if run.resume(system=system, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    sentences = SentenceCache()
    held_out = [make_valid(i) for i in range(config.data.valid_batches)]

    def embed(chunk: dict) -> dict[str, Tensor]:
        with run.autocast():
            return system.embed(chunk)

    def guess(chunk: dict) -> tuple[Tensor, dict[str, Tensor]]:
        with run.autocast():
            return system.guess(chunk)

    for batch in batches(make, run):
        if run.done:
            break
        batch = to_device(batch, run.device)
        keys = keys_of(batch)
        with run.autocast():
            chunks = split_batch(system.prepare(batch, sentences), config.chunk)

        def contrast(embeddings: dict[str, Tensor], keys=keys) -> tuple[Tensor, dict[str, Tensor]]:
            out = system.pairs(embeddings, keys)
            return out.total, out.terms

        found: dict[str, Tensor] = {}

        def backward(chunks=chunks, contrast=contrast, found=found) -> None:
            loss, terms = cached_backward(embed, chunks, contrast, guess)
            found |= {"loss": loss} | terms

        norm = descend(run, backward, optimizer, parameters, ema, system)
        run.track(found | {"gradient": norm})
        if run.step % loop.valid_every == 0:
            with ema.swapped(system):
                run.write(validate(system, embed, sentences, held_out, config.chunk))
            system.train()
        if run.save_due():
            run.save(system=system, optimizer=optimizer, ema=ema)
    run.save(system=system, optimizer=optimizer, ema=ema)
    with ema.swapped(system):
        figures = validate(system, embed, sentences, held_out, config.chunk)
        if run.rank == 0:
            system.save(run.folder / "model", dtype, tokenizer)
    run.write(figures)
    run.plot()
    return figures


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="peav_pretrain")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
