"""Rotary positions (Su et al. 2021, arXiv 2104.09864): element i of a head turns with element i + C/2.

Shapes: B batch, S sequence, T = B S tokens, H heads, C head width, J = C/2, Y columns of queries, keys and values side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.kernels.precision import at_least_fp32
from trainer.kernels.rope_parts import rope_parts

Rope = Callable[[Tensor, Tensor, Tensor], Tensor]
PackedRope = Callable[[Tensor, Tensor, Tensor, Sequence[int]], tuple[Tensor, Tensor, Tensor]]


def tables(positions: int, head_width: int, theta: float, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all angles, each (positions, C/2) in fp32: angle = position * theta ** (-2 i / C)."""
    frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.outer(torch.arange(positions, dtype=torch.float64), frequency)
    return angle.cos().float().to(device), angle.sin().float().to(device)


def _turned(x_BSHC: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor, sign: int) -> Tensor:
    half = x_BSHC.shape[-1] // 2
    cosine, sine = cosine_SJ[:, None, :], sine_SJ[:, None, :]
    x32 = at_least_fp32(x_BSHC)
    first, second = x32[..., :half], x32[..., half:]
    out = torch.empty_like(x32)
    torch.mul(first, cosine, out=out[..., :half]).addcmul_(second, sine, value=-sign)
    torch.mul(second, cosine, out=out[..., half:]).addcmul_(first, sine, value=sign)
    return out.to(x_BSHC.dtype)


class _Rope(torch.autograd.Function):
    """A rotation: its gradient is the rotation back, and nothing but the tables is kept."""

    @staticmethod
    def forward(ctx: Any, x_BSHC: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor) -> Tensor:
        ctx.save_for_backward(cosine_SJ, sine_SJ)
        return _turned(x_BSHC, cosine_SJ, sine_SJ, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosine_SJ, sine_SJ = ctx.saved_tensors
        return _turned(gradients[0], cosine_SJ, sine_SJ, -1), None, None


def eager(x_BSHC: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor) -> Tensor:
    """Turn each head of ``x`` by the angles of its positions, in plain tensor operations."""
    if torch.compiler.is_compiling():
        return _fusible(x_BSHC, cosine_SJ, sine_SJ)
    return _Rope.apply(x_BSHC, cosine_SJ, sine_SJ)  # type: ignore[no-untyped-call, no-any-return]


def _fusible(x_BSHC: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor) -> Tensor:
    """The same without writing into parts of a tensor, which a compiler cannot fuse."""
    cosine, sine = cosine_SJ[:, None, :], sine_SJ[:, None, :]
    first, second = at_least_fp32(x_BSHC).chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(x_BSHC.dtype)


def triton(x_BSHC: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor) -> Tensor:
    """The same in one pass; Triton, on CUDA."""
    turned_BSHC: Tensor
    (turned_BSHC,) = rope_parts(x_BSHC.flatten(2).flatten(0, 1), cosine_SJ, sine_SJ, [x_BSHC.shape[2]], 1)
    return turned_BSHC


def packed_eager(x_TY: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor, heads: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, turned, and values, of so many ``heads``: three neighbouring parts of the columns of ``x``. Values stay where they are."""
    sequence, half = cosine_SJ.shape
    parts = torch.split(x_TY, [count * 2 * half for count in heads], -1)
    query, key, value = (part.view(-1, sequence, count, 2 * half) for part, count in zip(parts, heads, strict=True))
    return eager(query, cosine_SJ, sine_SJ), eager(key, cosine_SJ, sine_SJ), value


def packed_triton(x_TY: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor, heads: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one pass each way; values are copied, so that nobody needs ``x`` any more."""
    query, key, value = rope_parts(x_TY, cosine_SJ, sine_SJ, heads, 2)
    return query, key, value


ROPES: dict[str, Rope] = {"eager": eager, "triton": triton}
PACKED_ROPES: dict[str, PackedRope] = {"eager": packed_eager, "triton": packed_triton}
"""The same for queries, keys and values side by side."""
