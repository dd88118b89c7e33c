"""Experts that take a fixed number of rows each: what goes beyond is dropped, what is missing is filled with rows of weight zero.

So every shape is known before the router is (GShard, arXiv 2006.16668, algorithm 1; Switch Transformer, arXiv 2101.03961, section 2.2).
Shapes: T tokens, K experts a token, R = T K choices, E experts, M rows of an expert, Q = E M.
"""

import torch
from torch import Tensor

from trainer.kernels.permutation import Order


def order_with_capacity(expert_TK: Tensor, counts_E: Tensor, capacity: int) -> tuple[Order, Tensor]:
    """The first ``capacity`` choices of each expert, by position of their tokens, and which rows are empty, (Q, 1)."""
    sorted_R = expert_TK.flatten().argsort(stable=True)
    place_M = torch.arange(capacity, device=counts_E.device)
    empty_EM = place_M >= counts_E[:, None]
    first_E = counts_E.cumsum(0) - counts_E
    row_EM = (first_E[:, None] + place_M).clamp_(max=len(sorted_R) - 1)
    slot_Q = sorted_R.index_select(0, row_EM.flatten())
    ends_E = torch.arange(1, len(counts_E) + 1, dtype=torch.int32, device=counts_E.device).mul_(capacity)
    return Order(slot_Q, slot_Q // expert_TK.shape[1], ends_E), empty_EM.view(-1, 1)


def dropped_choices(counts_E: Tensor, capacity: int | None) -> Tensor:
    """How many of the choices of one micro-batch find no row; none without a capacity."""
    return counts_E.new_zeros(()) if capacity is None else (counts_E - capacity).clamp_(min=0).sum()
