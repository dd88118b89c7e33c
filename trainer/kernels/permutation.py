"""Bring tokens into the order of their experts and sum what the experts return, with ``index_select`` alone: deterministic.

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
    row_TK: Tensor
    """Token's choice to its row: the inverse of ``slot_R``."""
    ends_E: Tensor
    """Row after each expert's last, int32."""


def order_by_expert(expert_TK: Tensor, counts_E: Tensor) -> Order:
    """Sort the choices by expert, stably."""
    slot_R = expert_TK.flatten().argsort(stable=True)
    row_TK = torch.empty_like(slot_R)
    row_TK[slot_R] = torch.arange(slot_R.numel(), device=slot_R.device)
    return Order(slot_R, slot_R // expert_TK.shape[1], row_TK.view_as(expert_TK), counts_E.cumsum(0, dtype=torch.int32))


def _sum_of_choices(rows_RD: Tensor, row_TK: Tensor) -> Tensor:
    sum_TD = rows_RD.index_select(0, row_TK[:, 0])
    for choice in range(1, row_TK.shape[1]):
        sum_TD += rows_RD.index_select(0, row_TK[:, choice])
    return sum_TD


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token_R: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(row_TK)
        return x_TD.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (row_TK,) = ctx.saved_tensors
        return _sum_of_choices(gradients[0], row_TK), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_RD: Tensor, token_R: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(token_R)
        return _sum_of_choices(rows_RD, row_TK)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (token_R,) = ctx.saved_tensors
        return gradients[0].index_select(0, token_R), None, None


def permute(x_TD: Tensor, order: Order) -> Tensor:
    """Copy each token to its K rows."""
    return _Permute.apply(x_TD, order.token_R, order.row_TK)  # type: ignore[no-untyped-call, no-any-return]


def combine(rows_RD: Tensor, order: Order) -> Tensor:
    """Sum the K rows of each token; keeps the token of each row and no row."""
    return _Combine.apply(rows_RD, order.token_R, order.row_TK)  # type: ignore[no-untyped-call, no-any-return]
