"""Logits of a router in fp32.

Shapes: T tokens, D width, E experts.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.kernels.precision import at_least_fp32

RouterLogits = Callable[[Tensor, Tensor], Tensor]


def fp32(x_TD: Tensor, weight_ED: Tensor) -> Tensor:
    """Both factors widened first; autograd keeps the wide copies."""
    return F.linear(at_least_fp32(x_TD), at_least_fp32(weight_ED))


@torch.library.custom_op("moe_ledger::wide_product", mutates_args=())
def wide_product(x_TD: Tensor, weight_ED: Tensor) -> Tensor:
    """x W^T of bf16 factors in fp32: products of two bf16 numbers are exact there, so only the order of the sum differs."""
    if x_TD.is_cuda and x_TD.dtype is torch.bfloat16:
        return torch.mm(x_TD, weight_ED.t(), out_dtype=torch.float32)
    return at_least_fp32(x_TD) @ at_least_fp32(weight_ED).t()


@wide_product.register_fake
def _(x_TD: Tensor, weight_ED: Tensor) -> Tensor:
    dtype = torch.float64 if x_TD.dtype is torch.float64 else torch.float32
    return x_TD.new_empty(x_TD.shape[0], weight_ED.shape[0], dtype=dtype)


class _Narrow(torch.autograd.Function):
    """Keeps the factors as they are; the logits' gradient is rounded to their type, as everywhere else in the model."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_ED: Tensor) -> Tensor:
        ctx.save_for_backward(x_TD, weight_ED)
        logits_TE: Tensor = wide_product(x_TD, weight_ED)
        return logits_TE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_TD, weight_ED = ctx.saved_tensors
        grad_TE = gradients[0].to(x_TD.dtype)
        return grad_TE @ weight_ED, grad_TE.t() @ x_TD


def narrow(x_TD: Tensor, weight_ED: Tensor) -> Tensor:
    """Factors in the compute type, sums in fp32."""
    return _Narrow.apply(x_TD, weight_ED.to(x_TD.dtype))  # type: ignore[no-untyped-call, no-any-return]


ROUTER_LOGITS: dict[str, RouterLogits] = {"fp32": fp32, "narrow": narrow}
