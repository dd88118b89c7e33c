"""Bring tokens into the order of their experts, and sum what the experts return.

Shapes: T tokens, K experts a token, R = T K rows, E experts, D width.
"""

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


def order_by_expert(expert_TK: Tensor, counts_E: Tensor) -> Order:
    """Sort the choices by expert, stably."""
    slot_R = expert_TK.flatten().argsort(stable=True)
    return Order(slot_R, slot_R // expert_TK.shape[1], counts_E.cumsum(0, dtype=torch.int32))


class _Combine(torch.autograd.Function):
    """Keeps the token of each row and no row (the builtin ``index_add`` keeps its whole source)."""

    @staticmethod
    def forward(ctx: Any, rows_RD: Tensor, token_R: Tensor, tokens: int) -> Tensor:
        ctx.save_for_backward(token_R)
        return _summed(rows_RD, token_R, tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (token_R,) = ctx.saved_tensors
        return gradients[0].index_select(0, token_R), None, None


def _summed(rows_RD: Tensor, token_R: Tensor, tokens: int) -> Tensor:
    return rows_RD.new_zeros(tokens, rows_RD.shape[1]).index_add_(0, token_R, rows_RD)


def permute(x_TD: Tensor, order: Order) -> Tensor:
    """Copy each token to its K rows."""
    return x_TD.index_select(0, order.token_R)


def combine(rows_RD: Tensor, order: Order, tokens: int) -> Tensor:
    """Sum the K rows of each of the ``tokens``."""
    return _Combine.apply(rows_RD, order.token_R, tokens)  # type: ignore[no-untyped-call, no-any-return]
