"""Softmax cross-entropy that turns logits into their gradient where they lie.

A row is read twice, the second time mostly from the L2 cache, and written once. Shapes: T tokens, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 8192
WARPS = 16


@triton.jit
def _rows(logit_ptr, label_ptr, share_ptr, loss_ptr, vocabulary, stride, BLOCK: tl.constexpr, WITH_GRADIENT: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.program_id(0).to(tl.int64)
    row_ptr = logit_ptr + token * stride
    column = tl.arange(0, BLOCK)
    top = tl.max(tl.full((BLOCK,), float("-inf"), tl.float32), axis=0)
    total = tl.sum(tl.zeros((BLOCK,), tl.float32), axis=0)
    for begin in range(0, vocabulary, BLOCK):
        logit = tl.load(row_ptr + begin + column, mask=begin + column < vocabulary, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(logit, axis=0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(logit - higher), axis=0)
        top = higher
    log_sum = top + tl.log(total)
    label = tl.load(label_ptr + token)
    counts = label >= 0
    tl.store(loss_ptr + token, tl.where(counts, log_sum - tl.load(row_ptr + tl.maximum(label, 0)).to(tl.float32), 0.0))
    if WITH_GRADIENT:
        scale = tl.where(counts, tl.load(share_ptr), 0.0)
        for begin in range(0, vocabulary, BLOCK):
            inside = begin + column < vocabulary
            logit = tl.load(row_ptr + begin + column, mask=inside, other=float("-inf")).to(tl.float32)
            gradient = tl.exp(logit - log_sum) - (begin + column == label).to(tl.float32)
            tl.store(row_ptr + begin + column, (gradient * scale).to(logit_ptr.dtype.element_ty), mask=inside)


def cross_entropy_(logits_TV: Tensor, labels_T: Tensor, share: Tensor, *, with_gradient: bool) -> Tensor:
    """Loss of each token (T,) fp32, nothing where the label is negative; with a gradient, ``logits`` afterwards hold that of ``share`` times the sum."""
    tokens, vocabulary = logits_TV.shape
    loss_T = torch.empty(tokens, dtype=torch.float32, device=logits_TV.device)
    block = min(BLOCK, triton.next_power_of_2(vocabulary))
    _rows[(tokens,)](logits_TV, labels_T, share, loss_T, vocabulary, logits_TV.stride(0), BLOCK=block, WITH_GRADIENT=with_gradient, num_warps=WARPS)
    return loss_T
