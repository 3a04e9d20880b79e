"""Train the mask separator over a frozen codec and embedder.

    python -m samaudio.train codec=runs/codec/model embedder=runs/embedder/model \\
        data.manifests=[PATH/manifest.jsonl] folder=runs/separator
    python -m samaudio.train +debug=separator           # a minute on a CPU, after +debug=codec and +debug=embedder
    torchrun --nproc-per-node 8 -m samaudio.train ...   # many GPUs

Running the same command again resumes. The result is ``<folder>/model``: codec, embedder, separator and settings, what
``samaudio.load`` opens.

The loss is taken where it counts: on the STFT of the stem that the mask cuts out of the mixture, back through the
codec's decoder. That is hypothesis 0, which learns from every item. Of further hypotheses the one closest to the truth
learns (winner takes all; multiple choice learning, Guzman-Rivera et al. 2012), in the latent, where they cost next to
nothing; and a classifier learns which of all of them will be the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
import torch.nn.functional as F_
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from peav import checkpoints as peav_checkpoints
from peav.clips import ClipStore
from peav.codec import DACVAE
from peav.errors import UserError
from peav.model import PEAV
from peav.rest import rest_query
from peav.train_codec import open_stores
from peav.train_embedder import SentenceCache
from peav.training import Ema, Loop, Run, as_dict, batches, descend, to_device

from . import checkpoints
from .cut_loss import cut_scores, stem_error
from .mask import ANYWHERE, INSIDE, OUTSIDE, MaskConfig, MaskOutput, MaskSeparator, agreement_of, hints_of
from .metrics import improvement
from .mixtures import MixtureSampler, Recipe, activity
from .model import MaskModel, Query
from .project import project, window_length

LEFT_BEHIND = 0.1  # share of the loss of further hypotheses that all of them learn from, not only the best one
LEAK = 0.5  # of the target's amplitude, at most, is taken for rest in training


class MixtureBatches:
    """Batch number to mixtures and questions.

    ``mixture [M, T]``, ``target [M * Q, T]`` (questions of one mixture next to each other), ``activity [M * Q, F]``,
    ``anchors [M * Q, F]``, ``phrases``, ``examples [M * Q]`` (clip numbers, -1 for none) and ``kind [M * Q]``: 0 the
    query is the phrase, 1 the example, 2 the span alone.
    """

    def __init__(self, store: ClipStore, config: DictConfig, hop: int, seed: int, recipe: Recipe):
        self.questions = config.data.questions
        self.sampler = MixtureSampler(store, recipe, seed, self.questions)
        self.mixtures = config.loop.batch_size // self.questions
        self.hop, self.seed = hop, seed
        self.span, self.example, self.span_only = config.data.span, config.data.example, config.data.span_only

    def __call__(self, number: int) -> dict:
        rng = np.random.default_rng((self.seed, 1, number))
        rows: dict[str, list] = {k: [] for k in ("mixture", "target", "activity", "anchors", "examples", "kind")}
        phrases, labels = [], []
        for i in range(number * self.mixtures, (number + 1) * self.mixtures):
            mixture = self.sampler[i]
            rows["mixture"].append(mixture.samples)
            for question in mixture.questions:
                target = mixture.target(question)
                active = activity(target, self.hop)
                kind = rng.choice(3, p=[1 - self.example - self.span_only, self.example, self.span_only])
                # A span must leave something out to say anything.
                partial = question.stem is not None and not active.all()
                if (kind == 1 and question.example is None) or (kind == 2 and not partial):
                    kind = 0
                told = partial and (kind == 2 or rng.random() < self.span)
                rows["target"].append(target)
                rows["activity"].append(active)
                rows["anchors"].append(_marks(active, rng) if told else np.full(len(active), ANYWHERE))
                rows["examples"].append(-1 if question.example is None else question.example)
                rows["kind"].append(kind)
                phrases.append(question.phrase)
                labels.append(question.label)
        batch = {k: torch.from_numpy(np.stack(v)) for k, v in rows.items()}
        return batch | {"phrases": phrases, "labels": labels}


def _marks(active: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Anchors as a person would draw them: short gaps closed, each edge off by up to a tenth of a second."""
    inside = np.zeros(len(active), dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
    spans = [list(pair) for pair in edges.reshape(-1, 2)]
    merged = spans[:1]
    for start, end in spans[1:]:
        if start - merged[-1][1] < 15:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    for start, end in merged:
        a, b = rng.integers(-5, 6, 2)
        inside[max(0, start + a): max(1, end + b)] = True
    return np.where(inside, INSIDE, OUTSIDE)


@torch.inference_mode()
def example_embeddings(embedder: PEAV, store: ClipStore, batch: int = 32, seconds: float = 2.5) -> Query:
    """Embeddings ``[N, E]`` of every clip's first seconds, for queries by example."""
    T = round(seconds * store.sample_rate)
    clips_of, frames_of = [], []
    for first in range(0, len(store), batch):
        clips = [torch.from_numpy(store[i][:T]) for i in range(first, min(first + batch, len(store)))]
        # Short clips are repeated rather than padded with silence, which the tower would hear.
        waves = torch.stack([c.repeat(-(-T // len(c)))[:T] for c in clips]).to(embedder.device)
        heard = embedder.audio(embedder.codec.latents(waves[:, None]))
        clips_of.append(embedder.head("audio", heard.pooled))
        if embedder.has_frames:
            frames_of.append(F_.normalize(embedder.head("frame", heard.frames).mean(1), dim=-1))
    return Query(torch.cat(clips_of).clone(), torch.cat(frames_of).clone() if frames_of else None)


class Queries:
    """Query vectors ``[Q, E]`` of a batch: phrases, examples, or NaN for a span alone."""

    def __init__(self, embedder: PEAV, examples: Query | None, device: torch.device):
        self.embedder, self.examples, self.device = embedder, examples, device
        self.sentences = SentenceCache()

    @torch.no_grad()
    def __call__(self, batch: dict) -> Query:
        text = self.sentences(batch["phrases"]).to(self.device)
        clip, frame = self.embedder.text_embedding(text).clone(), None
        if self.embedder.has_frames:
            frame = self.embedder.text_embedding(text, "frame").clone()
        if self.examples is not None:
            chosen = batch["kind"] == 1
            numbers = batch["examples"][chosen].to(self.examples.clip.device)
            clip[chosen] = self.examples.clip[numbers].to(self.device)
            if frame is not None and self.examples.frame is not None:
                frame[chosen] = self.examples.frame[numbers].to(self.device)
        for query in (clip, frame):
            if query is not None:
                query[batch["kind"] == 2] = torch.nan
        return Query(clip, frame)


@torch.no_grad()
def frames_of(model: MaskModel, latent: Tensor, query: Query) -> Tensor | None:
    """What the embedder hears in the mixtures, ``latent [M, D, F]``, next to each of their questions: unit vectors
    ``[Q, N, E]``, or None for a separator that takes no hints."""
    if not model.separator.config.hint_dim or query.frame is None:
        return None
    frames = model.embedder.head("frame", model.embedder.audio(latent).frames)
    return frames.repeat_interleave(len(query.frame) // len(latent), 0)


def hear(frames: Tensor | None, query: Query, drop: float = 0.0) -> Tensor | None:
    """The separator's hints ``[Q, 2E, N]``; a share ``drop`` of them is zero: it shall not lean on them alone."""
    if frames is None or query.frame is None:
        return None
    hints = hints_of(frames, query.frame)
    return hints * (torch.rand(len(hints), 1, 1, device=hints.device) >= drop)


@torch.no_grad()
def listen_to_rest(
    model: MaskModel, rest: Tensor, frames: Tensor | None, query: Query, drop: float = 0.0
) -> tuple[Tensor, Tensor] | None:
    """What the separator is told of the rest, whose latents are ``rest [Q, D, F]``; see `peav.rest`. A share
    ``drop`` of the questions is told nothing, as at a first look."""
    if not model.separator.config.rest or frames is None:
        return None
    told = torch.rand(len(rest), device=rest.device) >= drop
    clip, frame = torch.full_like(query.clip, torch.nan), torch.full_like(query.clip, torch.nan)
    if bool(told.any()):
        heard = model.embedder.head("audio", model.embedder.audio(rest[told]).pooled)
        clip[told], frame[told] = rest_query(heard, model.separator.names, query.clip[told])
    return clip, agreement_of(frames, frame)


def losses(codec: DACVAE, out: MaskOutput, batch: dict, mixture: Tensor, window: Tensor) -> dict[str, Tensor]:
    """Named loss terms of the first hypothesis; weighted in ``weights`` of the config.

    Args:
        mixture: ``[Q, T]``, each mixture repeated for its questions.
    """
    target = batch["target"]
    decoded = codec.decode(out.target[:, 0], length=mixture.shape[-1])[:, 0].float()
    # The codec is close to linear, so what is not decoded as target counts as residual; this saves a decoding.
    energy, along, power, constant = cut_scores(decoded, batch["mixture"], target, window)
    wave = 10 * ((decoded - target).square().sum(1) / mixture.square().sum(1).clamp_min(1e-8) + 0.05).log10()
    terms = {
        "stem": stem_error(energy, along, power, constant).mean(),
        "decoded": wave.mean(),
        "activity": F_.binary_cross_entropy_with_logits(out.activity, batch["activity"].float()),
        "presence": F_.binary_cross_entropy_with_logits(out.presence, (target.abs().amax(1) > 0).float()),
    }
    return terms


def further_losses(out: MaskOutput, target_latent: Tensor, latent: Tensor) -> dict[str, Tensor]:
    """What hypotheses after the first learn from, in the latent; nothing where there is only one.

    ``further`` is the error of the best of them, in dB; the others count a little, so that none is left behind.
    ``confidence`` is the cross entropy of which of all hypotheses is the best.

    Args:
        target_latent: latents of the true targets ``[Q, D, F]``.
        latent: of the mixtures, repeated for their questions, ``[Q, D, F]``.
    """
    if out.target.shape[1] == 1:
        return {}
    # The codec is close to orthonormal, so this ranks like the error of the waveform.
    distance = (out.target - target_latent[:, None]).square().sum((2, 3))
    power = latent.square().sum((1, 2)).clamp_min(1e-8)
    wanted = target_latent.square().sum((1, 2))
    # As for the first one: silence earns only so much where nothing is to be heard.
    level = torch.where(wanted > 1e-4 * power, wanted, power)[:, None]
    floor = torch.where(wanted > 1e-4 * power, 1e-3, 0.05)[:, None]
    error = 10 * (distance[:, 1:] / level + floor).log10()
    shares = torch.full_like(error, LEFT_BEHIND / error.shape[1])
    shares.scatter_add_(1, error.argmin(1, keepdim=True), torch.full_like(error[:, :1], 1 - LEFT_BEHIND))
    return {"further": (error * shares).sum(1).mean(),
            "confidence": F_.cross_entropy(out.confidence, distance.argmin(1))}


@torch.inference_mode()
def validate(
    model: MaskModel, queries: Queries, held_out: list[dict], window: Tensor
) -> dict[str, float]:
    """Mean SI-SDRi in dB of the right prompt and of the prompt for the other source, on two sources at 0 dB, and that
    of a second look, which knows what the first one left over, where the separator can use it."""
    right, wrong, other, informed = [], [], [], []
    device = model.device
    for batch in held_out:
        batch = to_device(batch, device)
        query = queries(batch)
        latent = model.codec.latents(batch["mixture"][:, None])
        stems = []
        for which in (0, 1):
            asked = Query(query.clip[which::2], None if query.frame is None else query.frame[which::2])
            frames, mixture = frames_of(model, latent, asked), batch["mixture"]
            hints, rest = hear(frames, asked), None
            for look in range(2 if model.separator.config.rest else 1):
                out = model.separator(latent, asked.clip, hints=hints, rest=rest)
                decoded = model.codec.decode(out.target[:, 0], length=mixture.shape[-1])[:, 0]
                stem = project(mixture, decoded, mixture - decoded, window)
                if look:
                    informed.append(improvement(stem, batch["target"][which::2], mixture))
                else:
                    stems.append(stem)
                    left = model.codec.latents((mixture - stem)[:, None])
                    rest = listen_to_rest(model, left, frames, asked)
        target, rest = batch["target"][0::2], batch["target"][1::2]
        right.append(improvement(stems[0], target, batch["mixture"]))
        other.append(improvement(stems[1], rest, batch["mixture"]))
        wrong.append(improvement(stems[1], target, batch["mixture"]))
    gains = torch.cat(right + other)
    figures = {"valid/si_sdri": float(gains.mean()), "valid/median": float(gains.median()),
               "valid/worse": float((gains < 0).float().mean()), "valid/wrong": float(torch.cat(wrong).mean())}
    if informed:
        figures["valid/second_look"] = float(torch.cat(informed).mean())
    return figures


def build(config: DictConfig, device: torch.device, names: Sequence[str] = ()) -> MaskModel:
    """The model to train: codec and embedder as given, a new separator or the one of ``init``; ``names`` of sounds are
    what it may be told of the rest of a mixture."""
    codec = DACVAE.from_pretrained(config.codec)
    embedder = peav_checkpoints.load(config.embedder, codec_folder=config.codec)
    settings = MaskConfig(latent_dim=codec.config.codebook_dim, query_dim=embedder.config.output_dim,
                          hint_dim=embedder.config.output_dim if embedder.has_frames else 0,
                          rest=len(names) if embedder.has_frames else 0,
                          **as_dict(config.separator))
    separator = MaskSeparator(settings)
    if config.init:
        _start_from(separator, checkpoints.load_model(config.init, "cpu").separator)
    if settings.rest:
        with torch.no_grad():
            vectors = embedder.text_vectors(list(names))
            for own, kind in zip(separator.names, ("audio", "frame"), strict=True):
                own.copy_(embedder.text_embedding(vectors, kind))
    model = MaskModel(codec, embedder, separator, {"name": config.name})
    model.codec.requires_grad_(False)
    model.embedder.requires_grad_(False)
    model.eval().separator.train()  # no dropout in what is frozen
    return model.to(device)


def _start_from(separator: MaskSeparator, old: MaskSeparator) -> None:
    """Take over every weight that fits; further hypotheses start as disturbed copies of the first."""
    state, found = separator.state_dict(), old.state_dict()
    for name, value in state.items():
        if name in found and found[name].shape == value.shape:
            state[name] = found[name]
        elif name.startswith("summary.2."):  # presence, then each hypothesis' confidence
            rows = min(len(value), len(found[name]))
            state[name] = torch.cat((found[name][:rows], value[rows:]))
    separator.load_state_dict(state)
    masks: list[Any] = list(separator.masks)
    first = masks[0]
    own, given = separator.config, old.config
    with torch.no_grad():
        for k in range(given.hypotheses, own.hypotheses):
            mask = masks[k]
            mask.weight.copy_(first.weight + 0.05 * first.weight.std() * torch.randn_like(first.weight))
            # Alternately a little more generous and a little stricter, so that they have something to differ in.
            mask.bias.copy_(first.bias + (0.2 if k % 2 else -0.2))
        if own.detail and (own.detail, own.detail_group) == (given.detail, given.detail_group):
            for new, known in zip(separator.detail.leave.parameters(), old.detail.leave.parameters(), strict=True):
                rows = known.unflatten(0, (given.hypotheses, -1))
                new.copy_(rows[[k if k < given.hypotheses else 0 for k in range(own.hypotheses)]].flatten(0, 1))


def _only_further_hypotheses(separator: MaskSeparator) -> list[torch.nn.Parameter]:
    """Freeze everything but the hypotheses after the first and what is said of their order: what the separator does by
    default stays as it was, bit by bit. Returns what learns."""
    separator.requires_grad_(False)
    last = separator.summary[2]
    rows = {last: 1}  # presence, and of the first hypothesis nothing is kept: all confidences learn
    if separator.config.detail:
        rows[separator.detail.leave] = 2 * separator.config.detail_group
    for layer, kept in rows.items():
        for parameter in layer.requires_grad_(True).parameters():
            parameter.register_hook(lambda gradient, kept=kept: torch.cat((gradient[:kept] * 0, gradient[kept:])))
    separator.masks[1:].requires_grad_(True)
    return [parameter for parameter in separator.parameters() if parameter.requires_grad]


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    train_store, valid_store = open_stores(config, run, DACVAE.from_pretrained(config.codec).config.sample_rate)
    model = build(config, run.device, sorted(train_store.by_label()) if config.look_twice else ())
    separator, codec = model.separator, model.codec
    window = torch.hann_window(window_length(model.sample_rate), device=run.device)
    parameters = _only_further_hypotheses(separator) if config.grow else list(separator.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=loop.lr, betas=(0.9, 0.98),
                                  weight_decay=0.0 if config.grow else loop.weight_decay)
    ema = Ema(separator, loop.ema)
    if run.resume(model=separator, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    recipe = Recipe(**as_dict(config.recipe))
    queries = Queries(model.embedder, example_embeddings(model.embedder, train_store), run.device)
    held_out = _held_out(valid_store, config, codec.hop_length)
    questions = config.data.questions
    # Validation asks the plain module: its shapes would have to be compiled too.
    look = torch.compile(separator) if config.compile else separator
    for batch in batches(MixtureBatches(train_store, config, codec.hop_length, loop.seed, recipe), run):
        if run.done:
            break
        batch = to_device(batch, run.device)
        query = queries(batch)
        with torch.no_grad():
            latent = codec.latents(batch["mixture"][:, None])
            frames = frames_of(model, latent, query)
            hints = hear(frames, query, config.data.hide_hints)
            target_latent = codec.latents(batch["target"][:, None])
            latent = latent.repeat_interleave(questions, 0)
            # A first look leaves some of the target over.
            leak = LEAK * torch.rand(len(latent), 1, 1, device=latent.device) - 1
            rest = listen_to_rest(model, latent + leak * target_latent, frames, query, config.data.hide_rest)
        mixture = batch["mixture"].repeat_interleave(questions, 0)
        with run.autocast():
            out = look(latent, query.clip, batch["anchors"], hints, rest=rest)
            terms = {} if config.grow else losses(codec, out, batch, mixture, window)
            terms |= further_losses(out, target_latent, latent)
        loss = sum(config.weights[name] * value for name, value in terms.items())
        norm = descend(run, loss.backward, optimizer, parameters, ema, separator)
        run.track(terms | {"loss": loss, "gradient": norm})
        if run.step % loop.valid_every == 0:
            with ema.swapped(separator):
                run.write(validate(model.eval(), queries, held_out, window))
            separator.train()
        if run.save_due():
            run.save(model=separator, optimizer=optimizer, ema=ema)
    run.save(model=separator, optimizer=optimizer, ema=ema)
    with ema.swapped(separator):
        figures = validate(model.eval(), queries, held_out, window)
        if run.rank == 0:
            checkpoints.save_model(model, Path(run.folder) / "model")
    run.write(figures)
    run.plot()
    return figures


def _held_out(store: ClipStore, config: DictConfig, hop: int) -> list[dict]:
    """Fixed validation batches: two sources at 0 dB, unchanged clips, both asked for by their plain labels."""
    recipe = Recipe(seconds=config.recipe.seconds, sources=(0, 1), snr_db=(0, 0), absent=0, plausible=0, augment=0)
    plain = OmegaConf.create(as_dict(config))
    plain.merge_with({"data": {"questions": 2, "span": 0, "example": 0, "span_only": 0}})
    make = MixtureBatches(store, plain, hop, 2**31 - 1, recipe)
    held_out = [make(i) for i in range(config.data.valid_batches)]
    for batch in held_out:
        batch["phrases"] = batch["labels"]
        if bool((batch["target"].abs().amax(1) == 0).any()):
            raise UserError("the validation clips hold no two labels that can be told apart in every mixture; "
                            "give more labels, or more clips with split 'valid'")
    return held_out


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="separator")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
