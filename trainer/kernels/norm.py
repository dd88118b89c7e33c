"""RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): x / rms(x) * weight, computed in fp32.

Shapes: N rows, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.kernels.precision import at_least_fp32, wide

RmsNorm = Callable[[Tensor, Tensor, float], Tensor]


def eager(x_ND: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """Plain tensor operations; autograd keeps the input, the reciprocal rms and the normalised copy."""
    x32_ND = at_least_fp32(x_ND)
    rstd_N1 = x32_ND.pow(2).mean(-1, keepdim=True).add(epsilon).rsqrt()
    return (x32_ND * rstd_N1).to(x_ND.dtype) * weight_D.to(x_ND.dtype)


class _Recompute(torch.autograd.Function):
    """Keeps the input and the reciprocal rms; backward normalises again."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        norm_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True, dtype=wide(x_ND.dtype))
        rstd_N1 = norm_N1.square_().div_(x_ND.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x_ND, rstd_N1, weight_D)
        out_ND: Tensor = (x_ND * rstd_N1).mul_(weight_D).to(x_ND.dtype)
        return out_ND

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad_ND,) = gradients
        x_ND, rstd_N1, weight_D = ctx.saved_tensors
        normalised_ND = x_ND * rstd_N1
        product_ND = normalised_ND * grad_ND
        grad_weight_D = product_ND.sum(0)
        mean_N1 = product_ND.mul_(weight_D).mean(-1, keepdim=True)
        del product_ND
        grad_x_ND = torch.mul(grad_ND, weight_D, out=torch.empty_like(normalised_ND))
        grad_x_ND.addcmul_(normalised_ND, mean_N1, value=-1).mul_(rstd_N1)
        return grad_x_ND.to(x_ND.dtype), grad_weight_D.to(weight_D.dtype), None


def recompute(x_ND: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """Keep input and reciprocal rms only."""
    return _Recompute.apply(x_ND, weight_D, epsilon)  # type: ignore[no-untyped-call, no-any-return]


NORMS: dict[str, RmsNorm] = {"eager": eager, "recompute": recompute}
