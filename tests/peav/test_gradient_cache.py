"""A batch in pieces has the gradients of the batch in one."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from peav import gradient_cache
from peav.gradient_cache import cached_backward, split_batch
from peav.losses import match_keys
from peav.pairs import FINE_TUNING, PairLosses

NAMES = ("audio", "video", "audio_video", "text_audio", "text_video", "text_audio_video", "audio_plus_text",
         "video_plus_text")  # fmt: skip
KEYS = {"text_audio": match_keys(list("aabcdefg"))}


class Towers(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 6))
        self.heads = nn.ModuleDict({name: nn.Linear(6, 4) for name in NAMES})
        self.frozen = nn.Linear(5, 4).requires_grad_(False)
        self.calls, self.most = 0, 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls, self.most = self.calls + 1, max(self.most, len(x))
        h = self.shared(x)
        found = {name: nn.functional.normalize(head(h), dim=-1) for name, head in self.heads.items()}
        return found | {"video": self.frozen(x)}


def made(dropout: float = 0.5) -> tuple[Towers, PairLosses, Tensor]:
    torch.manual_seed(0)
    towers, pairs = Towers(dropout).double(), PairLosses(FINE_TUNING, scale=2.0, bias=-1.0).double()
    return towers, pairs, torch.randn(8, 5, dtype=torch.float64)


def gradients(*modules: nn.Module) -> list[Tensor | None]:
    return [p.grad for module in modules for p in module.parameters()]


def agree(found: list, wanted: list) -> bool:
    return all((a is None and b is None) or torch.allclose(a, b, rtol=1e-10, atol=1e-12)
               for a, b in zip(found, wanted, strict=True))


def plain(dropout: float, size: int) -> tuple[Tensor, list, Tensor]:
    """The same chunks with all their graphs kept: loss, gradients, and the next random number."""
    towers, pairs, x = made(dropout)
    parts = [towers(chunk) for chunk in x.split(size)]
    out = pairs({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, KEYS)
    out.total.backward()
    return out.total.detach(), gradients(towers, pairs), torch.rand(1)


def cached(dropout: float, size: int, **more) -> tuple[Tensor, list, Tensor]:
    towers, pairs, x = made(dropout)
    total, terms = cached_backward(
        towers, x.split(size), lambda found: ((out := pairs(found, KEYS)).total, out.terms), **more)
    assert set(FINE_TUNING) <= set(terms) and not total.requires_grad
    return total, gradients(towers, pairs), torch.rand(1)


@pytest.mark.parametrize("size", [1, 2, 3, 8], ids=["ones", "twos", "uneven", "whole"])
def test_with_dropout_it_is_the_plain_step(size):
    wanted, found = plain(0.5, size), cached(0.5, size)
    assert torch.allclose(found[0], wanted[0], rtol=1e-12)
    assert agree(found[1], wanted[1]) and max(g.abs().max() for g in wanted[1] if g is not None) > 0.01
    assert torch.equal(found[2], wanted[2])  # and random numbers go on as if there had been one pass


def test_without_dropout_the_size_of_chunks_does_not_matter():
    assert agree(cached(0.0, 3)[1], plain(0.0, 8)[1])


def test_without_rewinding_dropout_would_show(monkeypatch):
    monkeypatch.setattr(gradient_cache, "_rewound", contextlib.nullcontext)
    assert not agree(cached(0.5, 3)[1], plain(0.5, 3)[1]) and agree(cached(0.0, 3)[1], plain(0.0, 3)[1])


def test_no_pass_sees_more_than_a_chunk():
    towers, pairs, x = made()
    cached_backward(towers, x.split(3), lambda found: ((out := pairs(found)).total, out.terms))
    assert towers.most == 3 and towers.calls == 6


def test_a_single_chunk_takes_one_pass():
    towers, pairs, x = made()
    cached_backward(towers, [x], lambda found: ((out := pairs(found)).total, out.terms))
    assert towers.calls == 1


def test_gradients_add_to_what_is_there():
    towers, pairs, x = made(0.0)

    def step() -> None:
        cached_backward(towers, x.split(3), lambda found: ((out := pairs(found)).total, out.terms))

    step()
    once = [None if g is None else g.clone() for g in gradients(towers)]
    step()
    assert agree(gradients(towers), [None if g is None else 2 * g for g in once])


def test_a_loss_of_chunks_alone_counts_by_their_size():
    towers, pairs, x = made(0.0)

    def extra(chunk: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = towers.shared(chunk).square().mean()
        return 3 * loss, {"square": loss}

    total, terms = cached_backward(
        towers, x.split(3), lambda found: ((out := pairs(found)).total, out.terms), extra)
    found = gradients(towers)
    other, pairs, x = made(0.0)
    out, square = pairs(other(x)), other.shared(x).square().mean()
    (out.total + 3 * square).backward()
    assert agree(found, gradients(other))
    assert float(terms["square"]) == pytest.approx(float(square.detach()))
    assert float(total) == pytest.approx(float(out.total.detach() + 3 * square.detach()))


def test_a_loss_of_chunks_may_be_nothing():
    nothing = cached(0.0, 3, extra=lambda chunk: (torch.zeros((), dtype=torch.float64), {}))
    without = cached(0.0, 3)
    assert float(nothing[0]) == float(without[0]) and agree(nothing[1], without[1])


def test_chunks_must_be_alike():
    with pytest.raises(ValueError, match="chunks have different embeddings"):
        cached_backward(lambda n: {str(n): torch.zeros(1, 2)}, [0, 1], lambda found: (torch.zeros(()), {}))
    with pytest.raises(ValueError, match="no chunks"):
        cached_backward(lambda x: x, [], lambda found: (torch.zeros(()), {}))


def test_batches_split_lists_and_tensors_alike():
    parts = split_batch({"x": torch.arange(5), "names": list("abcde")}, 2)
    assert [(p["x"].tolist(), p["names"]) for p in parts] == [([0, 1], ["a", "b"]), ([2, 3], ["c", "d"]), ([4], ["e"])]
    assert len(split_batch({"x": torch.arange(5)}, None)) == 1
    with pytest.raises(ValueError, match="chunks of 0 items"):
        split_batch({"x": torch.arange(5)}, 0)
