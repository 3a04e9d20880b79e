"""One large contrastive batch in the memory of a small one (GradCache, arXiv 2101.06983).

A contrastive loss needs all embeddings of a batch at once, but not the activations that led to them. So: embed the
batch in chunks without a graph, take the gradient of the loss with respect to the embeddings, then embed every chunk
again, now with a graph, and send its share of that gradient through. Twice the forward passes, once the memory of a
chunk, and the same gradients: random numbers are rewound, so dropout falls on the same units both times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")
Terms = dict[str, Tensor]


def cached_backward(
    encode: Callable[[Chunk], Mapping[str, Tensor]],
    chunks: Sequence[Chunk],
    loss: Callable[[dict[str, Tensor]], tuple[Tensor, Terms]],
    extra: Callable[[Chunk], tuple[Tensor, Terms]] | None = None,
) -> tuple[Tensor, Terms]:
    """Add the gradients of ``loss(embeddings of all chunks) + extra`` to every parameter's ``.grad``.

    Layers whose result depends on other items of their batch (batch norm), or that draw from other random numbers
    than torch's, would see chunks where they saw the batch, so they do not belong in ``encode``.

    Args:
        encode: a chunk to embeddings ``[b, E]`` by name, the same names for every chunk.
        chunks: the batch in pieces; a single one takes the ordinary way, with one forward pass.
        loss: all embeddings ``[B, E]`` to what to minimise, and its parts for the log. It may use processes
            together (`peav.pairs.PairLosses`), and is called once.
        extra: a loss that needs no other chunk, such as `peav.bestrq`'s, computed with the second pass. Chunks count
            by their number of items.

    Returns:
        The whole loss and its parts, without graph.

    Raises:
        ValueError: no chunks, or chunks with different embeddings.
    """
    if not chunks:
        raise ValueError("no chunks; give at least one")
    if len(chunks) == 1:
        total, terms = loss(dict(encode(chunks[0])))
        if extra is not None:
            more, parts = extra(chunks[0])
            total, terms = total + more, terms | parts
        total.backward()
        return total.detach(), {name: term.detach() for name, term in terms.items()}

    states, found = [], []
    for chunk in chunks:
        states.append(_random_state())
        with torch.no_grad():
            found.append(dict(encode(chunk)))
    if len({tuple(sorted(part)) for part in found}) > 1:
        raise ValueError(f"chunks have different embeddings: {sorted({tuple(sorted(part)) for part in found})}")
    leaves = {name: torch.cat([part[name] for part in found]).requires_grad_() for name in found[0]}
    sizes = [len(next(iter(part.values()))) for part in found]
    del found
    total, terms = loss(leaves)
    total.backward()

    total, terms = total.detach(), {name: term.detach() for name, term in terms.items()}
    gradients = {name: leaf.grad.split(sizes) for name, leaf in leaves.items() if leaf.grad is not None}
    for i, chunk in enumerate(chunks):
        with _rewound(states[i]):
            again = encode(chunk)
        roots, slopes = [], []
        for name, parts_of_gradient in gradients.items():
            if again[name].requires_grad:  # what is frozen needs no second thought
                roots.append(again[name])
                slopes.append(parts_of_gradient[i].to(again[name].dtype))
        if extra is not None:
            share = sizes[i] / sum(sizes)
            more, parts = extra(chunk)
            if more.requires_grad:
                roots.append(share * more)
                slopes.append(torch.ones_like(more))
            total = total + share * more.detach()
            terms |= {name: terms.get(name, torch.zeros_like(part)) + share * part.detach()
                      for name, part in parts.items()}
        if roots:
            torch.autograd.backward(roots, slopes)
    return total, terms


def split_batch(batch: Mapping[str, Any], size: int | None) -> list[dict[str, Any]]:
    """Chunks of at most ``size`` items of a batch whose values are tensors ``[B, ...]`` or lists of length B."""
    B = len(next(iter(batch.values())))
    if size is None or size >= B:
        return [dict(batch)]
    if size < 1:
        raise ValueError(f"chunks of {size} items; give at least 1")
    return [{name: value[i : i + size] for name, value in batch.items()} for i in range(0, B, size)]


def _random_state() -> tuple[Tensor, list[Tensor]]:
    """Of torch's generators: the CPU's, and those of CUDA devices if they are in use."""
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if in_use else []


@contextmanager
def _rewound(state: tuple[Tensor, list[Tensor]]):
    """Within it, random numbers are drawn as they were from ``state`` on; afterwards, as if nothing had happened."""
    kept = _random_state()
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        if kept[1]:
            torch.cuda.set_rng_state_all(kept[1])
