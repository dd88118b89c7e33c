"""silu(gate) * up * weight of each row, and its backward, in one pass each.

Shapes: R rows, F hidden width. Gate and up are addressed by their row strides, so they may lie side by side in one matrix.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096
"""Elements of one program."""


@triton.jit
def _forward(gate_ptr, up_ptr, weight_ptr, out_ptr, rows, width, stride, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < width)[None, :]
    place = row[:, None].to(tl.int64) * stride + column[None, :]
    gate = tl.load(gate_ptr + place, mask=inside, other=0.0).to(tl.float32)
    hidden = gate * tl.sigmoid(gate) * tl.load(up_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if WEIGHTED:
        hidden *= tl.load(weight_ptr + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    tl.store(out_ptr + row[:, None].to(tl.int64) * width + column[None, :], hidden.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    gate_ptr, up_ptr, weight_ptr, grad_ptr, grad_gate_ptr, grad_up_ptr, grad_weight_ptr, rows, width, stride, grad_stride,
    WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    weight = tl.load(weight_ptr + row, mask=row < rows, other=0.0).to(tl.float32)[:, None] if WEIGHTED else 1.0
    grad_weight = tl.zeros((ROWS,), tl.float32)
    for begin in range(0, width, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        inside = (row < rows)[:, None] & (column < width)[None, :]
        place = row[:, None].to(tl.int64) * stride + column[None, :]
        gate = tl.load(gate_ptr + place, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(up_ptr + place, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row[:, None].to(tl.int64) * width + column[None, :], mask=inside, other=0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        silu = gate * share
        if WEIGHTED:
            grad_weight += tl.sum(grad * silu * up, axis=1)
            grad *= weight
        place = row[:, None].to(tl.int64) * grad_stride + column[None, :]
        tl.store(grad_up_ptr + place, (grad * silu).to(grad_up_ptr.dtype.element_ty), mask=inside)
        tl.store(grad_gate_ptr + place, (grad * up * (share + silu * (1 - share))).to(grad_gate_ptr.dtype.element_ty), mask=inside)
    if WEIGHTED:
        tl.store(grad_weight_ptr + row, grad_weight.to(grad_weight_ptr.dtype.element_ty), mask=row < rows)


def _tile(width: int) -> tuple[int, int]:
    columns = min(TILE, triton.next_power_of_2(width))
    return max(1, TILE // 2 // columns), columns


def _run_forward(gate: Tensor, up: Tensor, weight: Tensor | None) -> Tensor:
    (rows, width), stride = gate.shape, gate.stride(0)
    out = gate.new_empty(rows, width)
    block, columns = _tile(width)
    grid = (triton.cdiv(rows, block), triton.cdiv(width, columns))
    _forward[grid](gate, up, weight, out, rows, width, stride, WEIGHTED=weight is not None, ROWS=block, COLUMNS=columns)
    return out


def _run_backward(gate: Tensor, up: Tensor, weight: Tensor | None, grad: Tensor, grad_gate: Tensor, grad_up: Tensor) -> Tensor | None:
    rows, width = gate.shape
    grad_weight = None if weight is None else torch.empty_like(weight)
    block, columns = _tile(width)
    _backward[(triton.cdiv(rows, block),)](
        gate, up, weight, grad.contiguous(), grad_gate, grad_up, grad_weight, rows, width, gate.stride(0), grad_gate.stride(0),
        WEIGHTED=weight is not None, ROWS=block, COLUMNS=columns,
    )  # fmt: skip
    return grad_weight


@torch.library.custom_op("moe_ledger::packed_swiglu", mutates_args=())
def packed_swiglu(both_RG: Tensor, weight_R1: Tensor) -> Tensor:
    """Of gate and up side by side (R, 2F): (R, F)."""
    gate, up = both_RG.chunk(2, -1)
    return _run_forward(gate, up, weight_R1)


@packed_swiglu.register_fake
def _(both_RG: Tensor, weight_R1: Tensor) -> Tensor:
    return both_RG.new_empty(both_RG.shape[0], both_RG.shape[1] // 2)


@torch.library.custom_op("moe_ledger::packed_swiglu_backward", mutates_args=())
def packed_swiglu_backward(both_RG: Tensor, weight_R1: Tensor, grad_RF: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of both, side by side, and of the weights."""
    grad_both = torch.empty_like(both_RG)
    (gate, up), (grad_gate, grad_up) = both_RG.chunk(2, -1), grad_both.chunk(2, -1)
    grad_weight = _run_backward(gate, up, weight_R1, grad_RF, grad_gate, grad_up)
    assert grad_weight is not None
    return grad_both, grad_weight


@packed_swiglu_backward.register_fake
def _(both_RG: Tensor, weight_R1: Tensor, grad_RF: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(both_RG), torch.empty_like(weight_R1)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad_RF: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    grads: tuple[Tensor, Tensor] = packed_swiglu_backward(*ctx.saved_tensors, grad_RF)
    return grads


packed_swiglu.register_autograd(_differentiate, setup_context=_save)


def forward(gate_RF: Tensor, up_RF: Tensor, weight_R1: Tensor | None) -> Tensor:
    """The product, (R, F); gate and up have one row stride."""
    return _run_forward(gate_RF, up_RF, weight_R1)


def backward(gate_RF: Tensor, up_RF: Tensor, weight_R1: Tensor | None, grad_RF: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of gate, up and weights."""
    grad_gate, grad_up = torch.empty_like(grad_RF), torch.empty_like(grad_RF)
    return grad_gate, grad_up, _run_backward(gate_RF, up_RF, weight_R1, grad_RF, grad_gate, grad_up)
