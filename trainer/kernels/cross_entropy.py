"""Head and cross-entropy as one: mean loss of hidden states against labels.

Shapes: T tokens, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from simulator.components import Component
from trainer.kernels.chunked_cross_entropy import IGNORED, chunked_linear_cross_entropy
from trainer.kernels.precision import at_least_fp32, wide
from trainer.measure.scope import scope


class _LinearCrossEntropy(torch.autograd.Function):
    """Keeps hidden states, weight, and the logits' gradient, which takes the logits' place; no fp32 copy of the logits is made on CUDA."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_VD: Tensor, labels_T: Tensor) -> Tensor:
        logits_TV = x_TD @ weight_VD.t()
        with_gradient = any(ctx.needs_input_grad)
        with scope(Component.CROSS_ENTROPY):
            share = (labels_T != IGNORED).sum().clamp_(min=1).to(wide(x_TD.dtype)).reciprocal_()
            if logits_TV.is_cuda:
                from trainer.kernels.triton.cross_entropy import cross_entropy_

                loss_T = cross_entropy_(logits_TV, labels_T, share, with_gradient=with_gradient)
            else:
                loss_T, logits_TV = _plain(logits_TV, labels_T, share)
            if with_gradient:
                ctx.save_for_backward(x_TD, weight_VD, logits_TV)
            return loss_T.sum().mul_(share)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x_TD, weight_VD, grad_TV = ctx.saved_tensors
        # Scaling the narrow factor and the narrow product leaves the logits' gradient alone.
        scale = gradients[0].to(x_TD.dtype)
        grad_weight_VD = grad_TV.t() @ (x_TD * scale)
        return (grad_TV @ weight_VD).mul_(scale), grad_weight_VD, None


def _plain(logits_TV: Tensor, labels_T: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The same in tensor operations."""
    counted_T = labels_T != IGNORED
    place_T1 = labels_T.clamp(min=0)[:, None]
    wide_TV = at_least_fp32(logits_TV)
    # A softmax that is its own output is nothing that PyTorch promises; these steps are.
    wide_TV.sub_(wide_TV.amax(-1, keepdim=True))
    loss_T1 = wide_TV.gather(1, place_T1).neg_()
    total_T1 = wide_TV.exp_().sum(-1, keepdim=True)
    loss_T1.add_(total_T1.log())
    share_T1 = (counted_T * share)[:, None]
    wide_TV.mul_(total_T1.reciprocal_().mul_(share_T1)).scatter_add_(1, place_T1, share_T1.neg_())
    return loss_T1.squeeze(1).mul_(counted_T), wide_TV.to(logits_TV.dtype)


def linear_cross_entropy(x_TD: Tensor, weight_VD: Tensor, labels_T: Tensor) -> Tensor:
    """Mean of -log softmax(x W^T)[label] over labels that are not ``IGNORED``, fp32."""
    return _LinearCrossEntropy.apply(x_TD, weight_VD.to(x_TD.dtype), labels_T)  # type: ignore[no-untyped-call, no-any-return]


LINEAR_CROSS_ENTROPIES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"in-place": linear_cross_entropy, "chunked": chunked_linear_cross_entropy}
