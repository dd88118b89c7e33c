"""Linear layers of all experts at once: rows sorted by expert, each times its expert's matrix.

Shapes: R rows, E experts, I and O widths in and out. ``ends_E`` (int32) holds the row after each expert's last.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

GroupedLinear = Callable[[Tensor, Tensor, Tensor], Tensor]


def grouped(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """One grouped GEMM. Widths must be multiples of 16 bytes; dtypes fp32, bf16, fp16."""
    return F.grouped_mm(x_RI, weight_EIO, offs=ends_E)  # type: ignore[no-any-return, attr-defined, unused-ignore]


def loop(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """The reference: one GEMM an expert, any width and dtype; reads the counts back to the host."""
    ends = ends_E.tolist()
    counts = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return torch.cat([rows @ matrix for rows, matrix in zip(torch.split(x_RI, counts), weight_EIO.unbind(), strict=True)])


GROUPED_LINEARS: dict[str, GroupedLinear] = {"grouped": grouped, "loop": loop}
