"""Stable counting sort of expert numbers: no comparison, no host synchronisation, one pass to count and one to place.

Shapes: R slots, E experts, N blocks of slots.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 16384
"""Slots times experts of one program: its one-hot matrix lives in registers."""


@triton.jit
def _count(expert_ptr, count_ptr, slots, blocks, EXPERTS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    block = tl.program_id(0)
    slot = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(expert_ptr + slot, mask=slot < slots, other=EXPERTS).to(tl.int32)
    column = tl.arange(0, EXPERTS)
    tl.store(count_ptr + column * blocks + block, tl.sum((expert[:, None] == column[None, :]).to(tl.int32), axis=0))


@triton.jit
def _place(expert_ptr, begin_ptr, slot_ptr, row_ptr, slots, blocks, EXPERTS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    block = tl.program_id(0)
    slot = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(expert_ptr + slot, mask=slot < slots, other=EXPERTS).to(tl.int32)
    column = tl.arange(0, EXPERTS)
    hot = (expert[:, None] == column[None, :]).to(tl.int32)
    begin = tl.load(begin_ptr + column * blocks + block)
    row = tl.sum(hot * (tl.cumsum(hot, axis=0) - 1 + begin[None, :]), axis=1)
    tl.store(row_ptr + slot, row, mask=slot < slots)
    tl.store(slot_ptr + row, slot, mask=slot < slots)


@torch.library.custom_op("moe_ledger::counting_sort", mutates_args=())
def counting_sort(expert_R: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Rows in the order of their experts, then of their slots: (row to slot, slot to row), each (R,) int32."""
    slots = expert_R.numel()
    width = triton.next_power_of_2(experts)
    block = max(16, min(1024, TILE // width))
    blocks = triton.cdiv(slots, block)
    expert_R = expert_R.contiguous()
    counts = torch.empty(width, blocks, dtype=torch.int32, device=expert_R.device)
    _count[(blocks,)](expert_R, counts, slots, blocks, EXPERTS=width, BLOCK=block)
    begin = counts.view(-1).cumsum(0, dtype=torch.int32).sub_(counts.view(-1))
    slot_R, row_R = (torch.empty(slots, dtype=torch.int32, device=expert_R.device) for _ in range(2))
    _place[(blocks,)](expert_R, begin, slot_R, row_R, slots, blocks, EXPERTS=width, BLOCK=block)
    return slot_R, row_R


@counting_sort.register_fake
def _(expert_R: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    slots = expert_R.numel()
    return expert_R.new_empty(slots, dtype=torch.int32), expert_R.new_empty(slots, dtype=torch.int32)
