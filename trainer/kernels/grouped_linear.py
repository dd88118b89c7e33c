"""Linear layers of all experts at once: rows sorted by expert, each times its expert's matrix.

Shapes: R rows, E experts, I and O widths in and out. ``ends_E`` (int32) holds the row after each expert's last.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GroupedLinear = Callable[[Tensor, Tensor, Tensor], Tensor]

GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GROUPED_ROW_BYTES = 16
"""What the rows of both factors of a grouped GEMM must be a multiple of."""


def grouped(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """One grouped GEMM. Widths must be multiples of 16 bytes; dtypes fp32, bf16, fp16."""
    if torch.compiler.is_compiling() and x_RI.dtype is torch.float32:
        out_RO: Tensor = _opaque(x_RI, weight_EIO, ends_E)
        return out_RO
    return _product(x_RI, weight_EIO, ends_E)


def _product(x: Tensor, weight: Tensor, ends_E: Tensor) -> Tensor:
    return F.grouped_mm(x, weight, offs=ends_E)  # type: ignore[no-any-return, attr-defined, unused-ignore]


@torch.library.custom_op("moe_ledger::grouped_linear", mutates_args=())
def _opaque(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """The same, unseen by the compiler, which takes PyTorch's for one of bf16 alone (2.13)."""
    return _product(x_RI, weight_EIO, ends_E)


@_opaque.register_fake
def _(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    return x_RI.new_empty(x_RI.shape[0], weight_EIO.shape[2])


@torch.library.custom_op("moe_ledger::grouped_linear_backward", mutates_args=())
def _opaque_backward(grad_RO: Tensor, x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rows and weights."""
    grad_RO = grad_RO.contiguous()
    return _product(grad_RO, weight_EIO.transpose(1, 2), ends_E), _product(x_RI.t(), grad_RO, ends_E)


@_opaque_backward.register_fake
def _(grad_RO: Tensor, x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_RI), torch.empty_like(weight_EIO)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_RO: Tensor) -> tuple[Tensor, Tensor, None]:
    grad_x_RI, grad_weight_EIO = _opaque_backward(grad_RO, *ctx.saved_tensors)
    return grad_x_RI, grad_weight_EIO, None


_opaque.register_autograd(_differentiate, setup_context=_save)


class _Loop(torch.autograd.Function):
    """Writes each expert's product into its place, so that memory does not depend on how the rows spread."""

    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
        spans = _spans(ends_E)
        ctx.save_for_backward(x_RI, weight_EIO)
        ctx.spans = spans
        out_RO = x_RI.new_empty(x_RI.shape[0], weight_EIO.shape[2])
        for expert, rows in enumerate(spans):
            torch.mm(x_RI[rows], weight_EIO[expert], out=out_RO[rows])
        return out_RO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad_RO,) = gradients
        x_RI, weight_EIO = ctx.saved_tensors
        grad_weight_EIO = torch.empty_like(weight_EIO)
        grad_x_RI = torch.empty_like(x_RI)
        for expert, rows in enumerate(ctx.spans):
            torch.mm(x_RI[rows].t(), grad_RO[rows], out=grad_weight_EIO[expert])
            torch.mm(grad_RO[rows], weight_EIO[expert].t(), out=grad_x_RI[rows])
        return grad_x_RI, grad_weight_EIO, None


def _spans(ends_E: Tensor) -> list[slice]:
    ends = ends_E.tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def loop(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """The reference: one GEMM an expert, any width and dtype; reads the counts back to the host."""
    return _Loop.apply(x_RI, weight_EIO, ends_E)  # type: ignore[no-untyped-call, no-any-return]


def batched(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """One batched GEMM for rows of which every expert has as many: any width and dtype, neither offsets nor the host.

    Raises ValueError where the rows are no multiple of the experts.
    """
    experts, rows = weight_EIO.shape[0], x_RI.shape[0]
    if rows % experts:
        raise ValueError(f"batched needs as many rows of every expert, and {rows} are no multiple of {experts} experts")
    return torch.bmm(x_RI.view(experts, rows // experts, -1), weight_EIO).view(rows, -1)


@torch.library.custom_op("moe_ledger::uneven_linear", mutates_args=())
def uneven(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """Stands in for ``batched`` where experts have different numbers of rows; no gradients. The grouped GEMM, or for what it cannot take the loop."""
    fits = x_RI.dtype in GROUPED_DTYPES and all(width * x_RI.element_size() % GROUPED_ROW_BYTES == 0 for width in weight_EIO.shape[1:])
    return (_product if fits else loop)(x_RI, weight_EIO, ends_E)


@uneven.register_fake
def _(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    return x_RI.new_empty(x_RI.shape[0], weight_EIO.shape[2])


GROUPED_LINEARS: dict[str, GroupedLinear] = {"grouped": grouped, "packed": grouped, "loop": loop, "batched": batched}
UNEVEN_LINEARS: dict[str, GroupedLinear] = GROUPED_LINEARS | {"batched": uneven}
"""What computes without gradients, where no layer has a capacity."""
