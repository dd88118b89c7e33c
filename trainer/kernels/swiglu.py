"""SwiGLU (Shazeer 2020, arXiv 2002.05202) with the routing weight of each row: silu(gate) * up * weight.

The weight is applied here and not after the down projection: that is linear, and a row of the hidden layer is the last place
where everything that the weight's gradient needs is kept anyway. Shapes: R rows, F hidden width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Swiglu = Callable[[Tensor, Tensor, Tensor | None], Tensor]
PackedSwiglu = Callable[[Tensor, Tensor], Tensor]


def eager(gate_RF: Tensor, up_RF: Tensor, weight_R1: Tensor | None) -> Tensor:
    """Plain tensor operations; autograd keeps gate, silu(gate), up and, with weights, the unweighted product."""
    hidden_RF = F.silu(gate_RF) * up_RF
    return hidden_RF if weight_R1 is None else hidden_RF * weight_R1.to(hidden_RF.dtype)


class _Recompute(torch.autograd.Function):
    """Keeps gate, up and weights; backward computes silu again."""

    @staticmethod
    def forward(ctx: Any, gate_RF: Tensor, up_RF: Tensor, weight_R1: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate_RF, up_RF, weight_R1)
        hidden_RF = F.silu(gate_RF).mul_(up_RF)
        return hidden_RF if weight_R1 is None else hidden_RF.mul_(weight_R1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        (grad_RF,) = gradients
        gate_RF, up_RF, weight_R1 = ctx.saved_tensors
        silu_RF = F.silu(gate_RF)
        grad_weight_R1 = None
        if weight_R1 is not None:
            product_RF = silu_RF * up_RF
            grad_weight_R1 = product_RF.mul_(grad_RF).sum(-1, keepdim=True, dtype=weight_R1.dtype)
            del product_RF
            grad_RF = grad_RF * weight_R1.to(grad_RF.dtype)
        grad_up_RF = silu_RF.mul_(grad_RF)
        grad_gate_RF = torch.ops.aten.silu_backward(grad_RF * up_RF, gate_RF)
        return grad_gate_RF, grad_up_RF, grad_weight_R1


def recompute(gate_RF: Tensor, up_RF: Tensor, weight_R1: Tensor | None) -> Tensor:
    """Keep the inputs only."""
    return _Recompute.apply(gate_RF, up_RF, weight_R1)  # type: ignore[no-untyped-call, no-any-return]


class _Triton(torch.autograd.Function):
    """As ``_Recompute``, in one pass each way."""

    @staticmethod
    def forward(ctx: Any, gate_RF: Tensor, up_RF: Tensor, weight_R1: Tensor | None) -> Tensor:
        from trainer.kernels.triton.swiglu import forward

        ctx.save_for_backward(gate_RF, up_RF, weight_R1)
        return forward(gate_RF, up_RF, weight_R1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        from trainer.kernels.triton.swiglu import backward

        gate_RF, up_RF, weight_R1 = ctx.saved_tensors
        return backward(gate_RF, up_RF, weight_R1, gradients[0])


def triton(gate_RF: Tensor, up_RF: Tensor, weight_R1: Tensor | None) -> Tensor:
    """Keep the inputs only; Triton, on CUDA."""
    return _Triton.apply(gate_RF, up_RF, weight_R1)  # type: ignore[no-untyped-call, no-any-return]


def packed_triton(both_RG: Tensor, weight_R1: Tensor) -> Tensor:
    """Of gate and up side by side, (R, 2F); their gradient is written side by side as well."""
    from trainer.kernels.triton.swiglu import packed_swiglu

    hidden_RF: Tensor = packed_swiglu(both_RG, weight_R1)
    return hidden_RF


def _of_halves(kernel: Swiglu) -> PackedSwiglu:
    def of_packed(both_RG: Tensor, weight_R1: Tensor) -> Tensor:
        gate_RF, up_RF = both_RG.chunk(2, -1)
        return kernel(gate_RF, up_RF, weight_R1)

    return of_packed


SWIGLUS: dict[str, Swiglu] = {"eager": eager, "recompute": recompute, "triton": triton}
PACKED_SWIGLUS: dict[str, PackedSwiglu] = {"eager": _of_halves(eager), "recompute": _of_halves(recompute), "triton": packed_triton}
"""The same for gate and up side by side."""
