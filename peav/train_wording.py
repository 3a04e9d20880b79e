"""Teach an embedder unusual wordings (`peav.wording`), minutes on a CPU; no sounds are needed.

    python -m peav.train_wording samaudio/weights/mini/embedder runs/wording/embedder

Phrases as people would ask for a sound (`peav/phrasings.json`) learn to mean what the label's own name meant before;
names and captions that the heads know keep what they meant; and phrases for sounds that no label covers stay away from
all of them. Everything but the wording stays as it was, bit by bit. ``--hold-out 0.2`` first reports how many phrases
are understood that were kept from a training of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F_
from torch import Tensor

from . import captions, checkpoints
from .config import PEAVConfig
from .model import PEAV
from .text import sentence_encoder
from .vocabulary import ABSENT, SYNONYMS
from .wording import phrasings

SHARPNESS = 20.0  # of the choice among labels
NOISE = 1.0  # length of the noise on sentence vectors, which have length one: phrases that nobody wrote down
KEPT = 20.0  # weight of what shall stay as it was


@dataclass
class Phrases:
    """Sentence vectors ``[P, D]`` and the number of each one's label."""

    vectors: Tensor
    labels: Tensor

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, int]]) -> Phrases:
        """From phrases and the numbers of their labels."""
        return cls(sentence_encoder()([phrase for phrase, _ in pairs]).clone(), torch.tensor([n for _, n in pairs]))

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` of them at random: vectors ``[count, D]`` and labels ``[count]``."""
        chosen = torch.randint(len(self.vectors), (count,))
        return self.vectors[chosen], self.labels[chosen]


class Teaching:
    """What a wording learns from.

    Args:
        model: whose heads say what labels mean; it may have a wording already, which is learned anew.
        share: of the phrases of each label is held out.
    """

    def __init__(self, model: PEAV, share: float = 0.0, seed: int = 0):
        by_label, absent = phrasings()
        self.labels = sorted(by_label)
        self.kinds = ("audio", "frame") if model.has_frames else ("audio",)
        rng = Random(seed)
        taught: list[tuple[str, int]] = []
        held: list[tuple[str, int]] = []
        known: list[tuple[str, int]] = []
        for number, label in enumerate(self.labels):
            phrases = list(by_label[label])
            rng.shuffle(phrases)
            kept = round(share * len(phrases))
            held += [(phrase, number) for phrase in phrases[:kept]]
            taught += [(phrase, number) for phrase in phrases[kept:]]
            names = (label, *SYNONYMS.get(label, ()))
            known += [(name, number) for name in names]
            known += [(template.format(rng.choice(names)), number) for template in captions.TEMPLATES[3:]]
        self.taught, self.known = Phrases.of(taught), Phrases.of(known)
        self.held = Phrases.of(held) if held else None
        # They need not be anywhere, only away from every label.
        self.absent = Phrases.of([(phrase, -1) for phrase in (*ABSENT, *absent)])
        self.names = sentence_encoder()(self.labels).clone()
        with torch.no_grad():
            self.anchors = {kind: model.head(f"text_{kind}", self.names) for kind in self.kinds}
            self.before = {kind: model.head(f"text_{kind}", self.known.vectors) for kind in self.kinds}
            self.scale, self.bias = (model.scalar(f"text_audio_logit_{name}").detach() for name in ("scale", "bias"))
        # A phrase for a closed hi-hat may mean "hi-hat" as well: no mistake, and nothing to learn.
        self.either = torch.tensor([[a != b and captions.overlap(a, b) for b in self.labels] for a in self.labels])

    def loss(self, model: PEAV, count: int = 512) -> Tensor:
        """A scalar, of ``count`` phrases and some of what shall stay where it is, over all text heads."""
        vectors, labels = self.taught.some(count)
        known = torch.randint(len(self.known.vectors), (count // 2,))
        absent, _ = self.absent.some(count // 4)
        total = torch.zeros(())
        for kind in self.kinds:
            noisy = vectors + NOISE * torch.randn_like(vectors) / vectors.shape[1] ** 0.5
            found, anchors = model.text_embedding(noisy, kind), self.anchors[kind]
            scores = (SHARPNESS * found @ anchors.T).masked_fill(self.either[labels], -torch.inf)
            total = total + F_.cross_entropy(scores, labels) + (1 - (found * anchors[labels]).sum(1)).mean()
            # The names themselves always count: what is built on the embedder was trained with them above all.
            for plain, before in ((self.known.vectors[known], self.before[kind][known]), (self.names, anchors)):
                kept = model.text_embedding(plain, kind)
                total = total + KEPT * (1 - (kept * before).sum(1)).mean()
            # As pairs that do not match count in the embedder's own training (SigLIP, arXiv 2303.15343).
            away = model.text_embedding(absent, kind) @ anchors.T
            total = total + F_.softplus(self.scale * away + self.bias).sum(1).mean()
        return total

    @torch.inference_mode()
    def understood(self, model: PEAV, phrases: Phrases) -> float:
        """Share of phrases that lie nearest to their own label, or to one that overlaps with it."""
        nearest = (model.text_embedding(phrases.vectors) @ self.anchors["audio"].T).argmax(1)
        return float((self.either[phrases.labels, nearest] | (nearest == phrases.labels)).float().mean())

    @torch.inference_mode()
    def kept(self, model: PEAV) -> float:
        """Cosine of what names mean now and what they meant before, of the worst of them."""
        return min(float((model.text_embedding(self.names, kind) * self.anchors[kind]).sum(1).min())
                   for kind in self.kinds)  # fmt: skip

    @torch.inference_mode()
    def nearness(self, model: PEAV) -> float:
        """Cosine of phrases for other sounds to the nearest label, in the mean."""
        return float((model.text_embedding(self.absent.vectors) @ self.anchors["audio"].T).amax(1).mean())


def with_wording(model: PEAV, hidden: int) -> PEAV:
    """The model with a fresh wording of this hidden width."""
    values = model.config.to_dict() | {"wording": hidden}
    new = PEAV(PEAVConfig.from_dict(values))
    old = {name: value for name, value in model.state_dict().items() if not name.startswith("wording.")}
    new.load_state_dict(new.state_dict() | old)
    new.requires_grad_(False).eval()
    assert new.wording is not None
    new.wording.requires_grad_(True)
    return new


def teach(model: PEAV, teaching: Teaching, steps: int, lr: float = 1e-3) -> None:
    """Let the model's wording learn, in place."""
    assert model.wording is not None
    model.wording.train()
    optimizer = torch.optim.AdamW(model.wording.parameters(), lr, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        teaching.loss(model).backward()
        optimizer.step()
    model.wording.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embedder", type=Path, help="folder of an embedder, or a model folder with one")
    parser.add_argument("out", type=Path, help="folder for the embedder with its wording")
    parser.add_argument("--codec", type=Path, help="its codec's folder, if not beside it")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hold-out", type=float, default=0.0, metavar="SHARE", help="of the phrases, for a trial")
    given = parser.parse_args(arguments)
    old = checkpoints.load(given.embedder, given.codec)
    for share in dict.fromkeys((given.hold_out, 0.0)):
        torch.manual_seed(given.seed)
        teaching = Teaching(old, share, given.seed)
        model = with_wording(old, given.hidden)
        judged = teaching.held or teaching.taught
        before, near = teaching.understood(old, judged), teaching.nearness(old)
        teach(model, teaching, given.steps)
        print(f"{len(judged.vectors)} phrases {'held out' if share else 'taught'}: {100 * before:.1f} % understood "
              f"before, {100 * teaching.understood(model, judged):.1f} % after; phrases for other sounds come as near "
              f"to a label as {near:.3f} before, {teaching.nearness(model):.3f} after; names moved by at most "
              f"{1 - teaching.kept(model):.4f}", flush=True)
    checkpoints.save(model, given.out)


if __name__ == "__main__":
    main()
