"""Collectives on rows that know their gradients.

Shapes: N rows here, M rows there, D width. ``sizes``: rows of each rank of the group, known to all of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

ALL_GATHER, REDUCE_SCATTER = (
    ("all_gather_single", "reduce_scatter_single") if hasattr(dist, "all_gather_single") else ("all_gather_into_tensor", "reduce_scatter_tensor")
)
"""Functions of torch.distributed, by their names since torch 2.13 or those before."""


class _Exchange(torch.autograd.Function):
    """All-to-all of rows; the gradient travels back the same way."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.back = received, sent, group
        return _exchanged(rows_ND, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(gradients[0], *ctx.back), None, None, None


def _exchanged(rows_ND: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    out_MD = rows_ND.new_empty(sum(received), *rows_ND.shape[1:])
    dist.all_to_all_single(out_MD, rows_ND.contiguous(), received, sent, group=group)
    return out_MD


def exchange(rows_ND: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    """Send the first ``sent[0]`` rows to the group's first rank, and so on; what arrives is ordered by sender."""
    return _Exchange.apply(rows_ND, sent, received, group)  # type: ignore[no-untyped-call, no-any-return]


class _Gather(torch.autograd.Function):
    """All rows of all ranks, in order of rank; the gradients of a rank's rows are summed over the ranks that got them."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.back = sizes, group
        return _gathered(rows_ND, sizes, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _reduced(gradients[0], *ctx.back), None, None


class _Reduce(torch.autograd.Function):
    """This rank's rows of the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.back = sizes, group
        return _reduced(rows_MD, sizes, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _gathered(gradients[0], *ctx.back), None, None


def gather_rows(rows_ND: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
    """All-gather along rows; backward is a reduce-scatter."""
    return _Gather.apply(rows_ND, sizes, group)  # type: ignore[no-untyped-call, no-any-return]


def reduce_rows(rows_MD: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
    """Reduce-scatter along rows; backward is an all-gather."""
    return _Reduce.apply(rows_MD, sizes, group)  # type: ignore[no-untyped-call, no-any-return]


def _gathered(rows_ND: Tensor, sizes: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    if len(set(sizes)) == 1:
        out_MD = rows_ND.new_empty(sum(sizes), *rows_ND.shape[1:])
        getattr(dist, ALL_GATHER)(out_MD, rows_ND.contiguous(), group=group)
        return out_MD
    # Uneven rows (a last batch, a single token) travel padded to the longest.
    padded = rows_ND.new_zeros(max(sizes), *rows_ND.shape[1:])
    padded[: rows_ND.shape[0]] = rows_ND
    out = rows_ND.new_empty(len(sizes), *padded.shape)
    getattr(dist, ALL_GATHER)(out.flatten(0, 1), padded, group=group)
    return torch.cat([part[:size] for part, size in zip(out, sizes, strict=True)])


def _reduced(rows_MD: Tensor, sizes: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    place = dist.get_rank(group)
    if len(set(sizes)) == 1:
        out_ND = rows_MD.new_empty(sizes[place], *rows_MD.shape[1:])
        getattr(dist, REDUCE_SCATTER)(out_ND, rows_MD.contiguous(), group=group)
        return out_ND
    total = rows_MD.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return torch.split(total, list(sizes))[place].clone()
