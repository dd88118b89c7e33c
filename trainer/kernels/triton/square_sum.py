"""The sum of squares over a list of tensors, each read once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 8192


@triton.jit
def _squares(x_ptr, part_ptr, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + place, mask=place < count, other=0.0).to(tl.float32)
    tl.store(part_ptr + tl.program_id(0), tl.sum(x * x, axis=0))


def square_sum(tensors: list[Tensor]) -> Tensor:
    """Over all elements of contiguous ``tensors``, fp32, on their device."""
    blocks = [triton.cdiv(tensor.numel(), BLOCK) for tensor in tensors]
    parts = torch.empty(sum(blocks), dtype=torch.float32, device=tensors[0].device)
    for tensor, part in zip(tensors, parts.split(blocks), strict=True):
        _squares[(part.numel(),)](tensor, part, tensor.numel(), BLOCK=BLOCK, num_warps=8)
    return parts.sum()
