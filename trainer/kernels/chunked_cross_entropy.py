"""Head and cross-entropy over some tokens at a time: the logits of all of them are never there at once.

The forward pass takes the gradient of each chunk's logits while they are there, and keeps the gradients of hidden states and weight.
Shapes: T tokens, C tokens of a chunk, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from simulator.components import Component
from simulator.specs.chunks import chunk_rows
from trainer.kernels.precision import at_least_fp32, wide
from trainer.measure.scope import scope

IGNORED = -100
"""Label of a token that does not count, as in PyTorch's losses."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Keeps the gradients of both inputs, which the backward pass scales in place."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, rows: int) -> Tensor:
        narrow_VD = weight_VD.to(x_TD.dtype)
        grad_x_TD = torch.empty_like(x_TD)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide(weight_VD.dtype))
        loss = torch.zeros((), dtype=wide(x_TD.dtype), device=x_TD.device)
        place_T, share_T = labels_T.clamp(min=0), _shares(labels_T, loss.dtype)
        for x_CD, place_C, share_C, grad_x_CD in zip(*(torch.split(each, rows) for each in (x_TD, place_T, share_T, grad_x_TD)), strict=True):
            loss.sub_(_chunk(x_CD, narrow_VD, place_C[:, None], share_C[:, None], grad_x_CD, grad_weight_VD))
        ctx.save_for_backward(grad_x_TD, grad_weight_VD.to(weight_VD.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_x_TD, grad_weight_VD = ctx.saved_tensors
        return grad_x_TD.mul_(gradients[0]), grad_weight_VD.mul_(gradients[0]), None, None


def _shares(labels_T: Tensor, dtype: torch.dtype) -> Tensor:
    """What each token counts in the mean: ignored ones nothing."""
    counted_T = labels_T != IGNORED
    return counted_T.to(dtype).div_(counted_T.sum().clamp_(min=1))


def _chunk(x_CD: Tensor, weight_VD: Tensor, place_C1: Tensor, share_C1: Tensor, grad_x_CD: Tensor, grad_weight_VD: Tensor) -> Tensor:
    """The chunk's part of the mean log-probability; writes the gradient of ``x_CD`` and adds to that of the weight."""
    grad_CV, log_probability = _logits_gradient(x_CD @ weight_VD.t(), place_C1, share_C1)
    torch.mm(grad_CV, weight_VD, out=grad_x_CD)
    if grad_CV.dtype == grad_weight_VD.dtype:
        grad_weight_VD.addmm_(grad_CV.t(), x_CD)
    else:
        grad_weight_VD.add_(grad_CV.t() @ x_CD)
    return log_probability


def _logits_gradient(logits_CV: Tensor, place_C1: Tensor, share_C1: Tensor) -> tuple[Tensor, Tensor]:
    dtype, wide_CV = logits_CV.dtype, at_least_fp32(logits_CV)
    del logits_CV
    log_probability_CV = wide_CV.log_softmax(-1)
    del wide_CV
    log_probability = log_probability_CV.gather(1, place_C1).mul_(share_C1).sum()
    grad_CV = log_probability_CV.exp_()
    grad_CV.scatter_add_(1, place_C1, grad_CV.new_full((1, 1), -1.0).expand_as(place_C1))
    return grad_CV.mul_(share_C1).to(dtype), log_probability


def chunked_linear_cross_entropy(x_TD: Tensor, weight_VD: Tensor, labels_T: Tensor) -> Tensor:
    """Mean of -log softmax(x W^T)[label] over labels that are not ``IGNORED``, fp32; the weight's gradient is summed over chunks in fp32."""
    with scope(Component.CROSS_ENTROPY):
        rows = chunk_rows(x_TD.shape[0], x_TD.shape[1], weight_VD.shape[0])
        return _ChunkedCrossEntropy.apply(x_TD, weight_VD, labels_T, rows)  # type: ignore[no-untyped-call, no-any-return]
