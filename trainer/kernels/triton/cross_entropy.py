"""Softmax cross-entropy that turns logits into their gradient where they lie.

Shapes: T tokens, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rows(logit_ptr, label_ptr, loss_ptr, vocabulary, stride, scale, BLOCK: tl.constexpr, WITH_GRADIENT: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.program_id(0).to(tl.int64)
    row_ptr = logit_ptr + token * stride
    column = tl.arange(0, BLOCK)
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, vocabulary, BLOCK):
        logit = tl.load(row_ptr + begin + column, mask=begin + column < vocabulary, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, logit)
        # A lane without any entry yet keeps a total of nothing.
        total = tl.where(higher == float("-inf"), 0.0, total * tl.exp(highest - higher) + tl.exp(logit - higher))
        highest = higher
    top = tl.max(highest, axis=0)
    log_sum = top + tl.log(tl.sum(total * tl.exp(highest - top), axis=0))
    label = tl.load(label_ptr + token)
    tl.store(loss_ptr + token, log_sum - tl.load(row_ptr + label).to(tl.float32))
    if WITH_GRADIENT:
        for begin in range(0, vocabulary, BLOCK):
            inside = begin + column < vocabulary
            logit = tl.load(row_ptr + begin + column, mask=inside, other=float("-inf")).to(tl.float32)
            gradient = tl.exp(logit - log_sum) - (begin + column == label).to(tl.float32)
            tl.store(row_ptr + begin + column, (gradient * scale).to(logit_ptr.dtype.element_ty), mask=inside)


def cross_entropy_(logits_TV: Tensor, labels_T: Tensor, *, with_gradient: bool) -> Tensor:
    """Loss of each token (T,) fp32; with a gradient, ``logits`` afterwards hold that of the mean loss."""
    tokens, vocabulary = logits_TV.shape
    loss_T = torch.empty(tokens, dtype=torch.float32, device=logits_TV.device)
    block = min(4096, triton.next_power_of_2(vocabulary))
    _rows[(tokens,)](logits_TV, labels_T, loss_T, vocabulary, logits_TV.stride(0), 1.0 / tokens, BLOCK=block, WITH_GRADIENT=with_gradient, num_warps=8)
    return loss_T
