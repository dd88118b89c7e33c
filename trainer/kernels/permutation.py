"""Bring tokens into the order of their experts, and sum what the experts return.

Shapes: T tokens, K experts a token, R = T K rows, E experts, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Order(NamedTuple):
    """Where each row comes from. Rows are sorted by expert, then by token."""

    slot_R: Tensor
    """Row to its place in the flattened (T, K) choice."""
    token_R: Tensor
    """Row to its token."""
    ends_E: Tensor
    """Row after each expert's last, int32."""
    row_TK: Tensor | None = None
    """Place in the choice to its row; only the kernels that gather in both directions need it."""


def order_by_expert(expert_TK: Tensor, counts_E: Tensor) -> Order:
    """Sort the choices by expert, stably."""
    slot_R = expert_TK.flatten().argsort(stable=True)
    return Order(slot_R, slot_R // expert_TK.shape[1], counts_E.cumsum(0, dtype=torch.int32))


class _Combine(torch.autograd.Function):
    """Sums the rows of each token: gathered where ``row_TK`` says which they are, else added into zeros.

    Keeps the token of each row and no row (the builtin ``index_add`` keeps its whole source).
    """

    @staticmethod
    def forward(ctx: Any, rows_RD: Tensor, token_R: Tensor, tokens: int, row_TK: Tensor | None) -> Tensor:
        ctx.save_for_backward(token_R)
        return _added(rows_RD, token_R, tokens) if row_TK is None else _gathered_sum(rows_RD, row_TK)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (token_R,) = ctx.saved_tensors
        return gradients[0].index_select(0, token_R), None, None, None


def _added(rows_RD: Tensor, token_R: Tensor, tokens: int) -> Tensor:
    return rows_RD.new_zeros(tokens, rows_RD.shape[1]).index_add_(0, token_R, rows_RD)


def permute(x_TD: Tensor, order: Order) -> Tensor:
    """Copy each token to its K rows."""
    return x_TD.index_select(0, order.token_R)


def combine(rows_RD: Tensor, order: Order, tokens: int) -> Tensor:
    """Sum the K rows of each of the ``tokens``."""
    return _Combine.apply(rows_RD, order.token_R, tokens, None)  # type: ignore[no-untyped-call, no-any-return]


class _Permute(torch.autograd.Function):
    """Keeps the rows of each token, so that backward gathers them instead of adding into zeros."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token_R: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(row_TK)
        return x_TD.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _gathered_sum(gradients[0], ctx.saved_tensors[0]), None, None


class _Reorder(torch.autograd.Function):
    """A permutation of single elements, and back."""

    @staticmethod
    def forward(ctx: Any, flat_R: Tensor, slot_R: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(row_TK)
        return flat_R.index_select(0, slot_R)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, ctx.saved_tensors[0].flatten()), None, None


def _gathered_sum(rows_RD: Tensor, row_TK: Tensor) -> Tensor:
    return rows_RD.index_select(0, row_TK.flatten()).view(*row_TK.shape, -1).sum(1)


def order_both_ways(expert_TK: Tensor, counts_E: Tensor) -> Order:
    """Sort the choices by expert, stably, and tell both directions; int32."""
    if expert_TK.is_cuda:
        from trainer.kernels.triton.counting_sort import counting_sort

        slot_R, row_R = counting_sort(expert_TK.flatten(), counts_E.numel())
    else:
        slot_R = expert_TK.flatten().argsort(stable=True).int()
        row_R = torch.empty_like(slot_R).scatter_(0, slot_R.long(), torch.arange(slot_R.numel(), dtype=torch.int32))
    return Order(slot_R, slot_R // expert_TK.shape[1], counts_E.cumsum(0, dtype=torch.int32), row_R.view_as(expert_TK))


def gather_permute(x_TD: Tensor, order: Order) -> Tensor:
    """Copy each token to its K rows; the gradient is gathered."""
    return _Permute.apply(x_TD, order.token_R, order.row_TK)  # type: ignore[no-untyped-call, no-any-return]


def gather_combine(rows_RD: Tensor, order: Order, tokens: int) -> Tensor:
    """Sum the K rows of each of the ``tokens``, gathering them."""
    return _Combine.apply(rows_RD, order.token_R, tokens, order.row_TK)  # type: ignore[no-untyped-call, no-any-return]


def reorder(weight_TK: Tensor, order: Order) -> Tensor:
    """The weight of each row, (R,)."""
    return weight_TK.flatten().index_select(0, order.slot_R)


def gather_reorder(weight_TK: Tensor, order: Order) -> Tensor:
    """The weight of each row, (R,); the gradient is gathered."""
    return _Reorder.apply(weight_TK.flatten(), order.slot_R, order.row_TK)  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True)
class Permutation:
    """One way there and back."""

    order: Callable[[Tensor, Tensor], Order]
    permute: Callable[[Tensor, Order], Tensor]
    reorder: Callable[[Tensor, Order], Tensor]
    combine: Callable[[Tensor, Order, int], Tensor]


PERMUTATIONS = {
    "index_add": Permutation(order_by_expert, permute, reorder, combine),
    "gather": Permutation(order_both_ways, gather_permute, gather_reorder, gather_combine),
}
