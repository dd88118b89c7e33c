"""Rotary positions (Su et al. 2021, arXiv 2104.09864): element i of a head turns with element i + C/2.

Shapes: B batch, S sequence, H heads, C head width.
"""

from typing import Any

import torch
from torch import Tensor

from trainer.kernels.precision import at_least_fp32


def tables(positions: int, head_width: int, theta: float, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all angles, each (positions, C/2) in fp32: angle = position * theta ** (-2 i / C)."""
    frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.outer(torch.arange(positions, dtype=torch.float64), frequency)
    return angle.cos().float().to(device), angle.sin().float().to(device)


def _turned(x_BSHC: Tensor, cosine_SC: Tensor, sine_SC: Tensor, sign: int) -> Tensor:
    half = x_BSHC.shape[-1] // 2
    cosine, sine = cosine_SC[:, None, :], sine_SC[:, None, :]
    x32 = at_least_fp32(x_BSHC)
    first, second = x32[..., :half], x32[..., half:]
    out = torch.empty_like(x32)
    torch.mul(first, cosine, out=out[..., :half]).addcmul_(second, sine, value=-sign)
    torch.mul(second, cosine, out=out[..., half:]).addcmul_(first, sine, value=sign)
    return out.to(x_BSHC.dtype)


class _Rope(torch.autograd.Function):
    """A rotation: its gradient is the rotation back, and nothing but the tables is kept."""

    @staticmethod
    def forward(ctx: Any, x_BSHC: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
        ctx.save_for_backward(cosine_SC, sine_SC)
        return _turned(x_BSHC, cosine_SC, sine_SC, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosine_SC, sine_SC = ctx.saved_tensors
        return _turned(gradients[0], cosine_SC, sine_SC, -1), None, None


def rope(x_BSHC: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
    """Turn each head of ``x`` by the angles of its positions."""
    if torch.compiler.is_compiling():
        return _fusible(x_BSHC, cosine_SC, sine_SC)
    return _Rope.apply(x_BSHC, cosine_SC, sine_SC)  # type: ignore[no-untyped-call, no-any-return]


def _fusible(x_BSHC: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
    """The same without writing into parts of a tensor, which a compiler cannot fuse."""
    cosine, sine = cosine_SC[:, None, :], sine_SC[:, None, :]
    first, second = at_least_fp32(x_BSHC).chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(x_BSHC.dtype)
