"""Rows of a batch that is spread over processes.

Axes: ``B`` batch of one process, ``W`` processes. Everything here works in a single process too, where it does
nothing, and needs no device in particular.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def place(group: ProcessGroup | None = None) -> tuple[int, int]:
    """``(rank, world size)`` of this process in the group; ``(0, 1)`` when there are no others."""
    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def gather_rows(x: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """``[W B, ...]`` of every process's ``x [B, ...]``, in the order of ranks, with gradients.

    The gradient of ``x`` is the sum of what all processes have for it, so all of them must run the backward pass.
    Shapes must agree: see `check_alike`.
    """
    if place(group)[1] == 1:
        return x
    return _Gather.apply(x, group)


def sum_over_processes(x: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """``x`` added up over processes, without gradient."""
    x = x.detach().clone()
    if place(group)[1] > 1:
        dist.all_reduce(x, group=group)
    return x


def check_alike(values: Mapping[str, int], device: torch.device, group: ProcessGroup | None = None) -> None:
    """Make sure that all processes bring the same numbers, because a collective call with different ones hangs.

    Raises:
        ValueError: in every process, naming the numbers of each.
    """
    world = place(group)[1]
    if world == 1:
        return
    own = torch.tensor(list(values.values()), dtype=torch.int64, device=device)
    found = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather(found, own, group=group)
    told = torch.stack(found).tolist()
    for name, row in zip(values, zip(*told, strict=True), strict=True):
        if len(set(row)) > 1:
            raise ValueError(
                f"processes bring different {name}: {', '.join(map(str, row))}; each must bring the same, "
                "so drop a last, smaller batch"
            )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group, ctx.rows = group, len(x)
        found = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(place(group)[1])]
        dist.all_gather(found, x.contiguous(), group=group)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        own = gradients[0].new_empty(ctx.rows, *gradients[0].shape[1:])
        dist.reduce_scatter_tensor(own, gradients[0].contiguous(), group=ctx.group)
        return own, None
