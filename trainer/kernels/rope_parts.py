"""Queries, keys and values out of the columns of one matrix, in one pass: what has a position turned by its angle, the rest as it is.

Backward turns their gradients back into that of the matrix, in one pass as well; nothing but the tables is kept. Operations that a compiler takes as
they are. Shapes: T = B S tokens, Y columns of all parts, H heads of a part, C head width, J its half.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("moe_ledger::rope_parts", mutates_args=(), device_types="cuda")
def rope_parts(x_TY: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor, heads: Sequence[int], turned: int) -> list[Tensor]:
    """The parts, each (B, S, H, C) for its number of ``heads``; the first ``turned`` of them by the angles of their positions."""
    from trainer.kernels.triton.rope import turn

    parts = _new_parts(x_TY, cosine_SJ, heads)
    turn(x_TY if x_TY.stride(1) == 1 else x_TY.contiguous(), parts, cosine_SJ, sine_SJ, turned, joins=False)
    return parts


@torch.library.custom_op("moe_ledger::rope_parts_backward", mutates_args=(), device_types="cuda")
def rope_parts_backward(grads_BSHC: Sequence[Tensor], cosine_SJ: Tensor, sine_SJ: Tensor, turned: int) -> Tensor:
    """The gradient of the matrix (T, Y)."""
    from trainer.kernels.triton.rope import turn

    grad_TY = _new_whole(grads_BSHC)
    turn(grad_TY, [grad if grad.stride(3) == 1 else grad.contiguous() for grad in grads_BSHC], cosine_SJ, sine_SJ, turned, joins=True)
    return grad_TY


def _new_parts(x_TY: Tensor, cosine_SJ: Tensor, heads: Sequence[int]) -> list[Tensor]:
    sequence, half = cosine_SJ.shape
    return [x_TY.new_empty(x_TY.shape[0] // sequence, sequence, count, 2 * half) for count in heads]


def _new_whole(parts_BSHC: Sequence[Tensor]) -> Tensor:
    batch, sequence, _, width = parts_BSHC[0].shape
    return parts_BSHC[0].new_empty(batch * sequence, sum(part.shape[2] for part in parts_BSHC) * width)


@rope_parts.register_fake
def _(x_TY: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor, heads: Sequence[int], turned: int) -> list[Tensor]:
    return _new_parts(x_TY, cosine_SJ, heads)


@rope_parts_backward.register_fake
def _(grads_BSHC: Sequence[Tensor], cosine_SJ: Tensor, sine_SJ: Tensor, turned: int) -> Tensor:
    return _new_whole(grads_BSHC)


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    _, cosine_SJ, sine_SJ, _, ctx.turned = inputs
    ctx.save_for_backward(cosine_SJ, sine_SJ)


def _differentiate(ctx: Any, grads_BSHC: list[Tensor]) -> tuple[Tensor, None, None, None, None]:
    return rope_parts_backward(grads_BSHC, *ctx.saved_tensors, ctx.turned), None, None, None, None


rope_parts.register_autograd(_differentiate, setup_context=_save)
