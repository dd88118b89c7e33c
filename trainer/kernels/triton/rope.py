"""Heads that lie side by side in a matrix, taken apart and turned by the angles of their positions, or turned back and put together: one pass each.

Shapes: T tokens, B batch, S sequence, H heads of a part, C head width, J its half. The matrix is addressed by its row stride, the parts (B, S, H, C) by
the strides of batch, sequence and heads.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import gcd

import triton
import triton.language as tl
from torch import Tensor

TILE = 2048
"""Elements of one program, in each half of its heads."""
WARPS = 4


@triton.jit
def _heads(  # type: ignore[no-untyped-def]
    whole_ptr, part_ptr, cosine_ptr, sine_ptr, whole_place, part_place, table_place, inside, HALF: tl.constexpr, TURNED: tl.constexpr, JOINS: tl.constexpr
):  # fmt: skip
    source, target = whole_ptr + whole_place, part_ptr + part_place
    if JOINS:
        source, target = target, source
    first = tl.load(source, mask=inside)
    second = tl.load(source + HALF, mask=inside)
    if TURNED:
        cosine = tl.load(cosine_ptr + table_place, mask=inside)
        sine = tl.load(sine_ptr + table_place, mask=inside)
        if JOINS:
            sine = -sine
        x, y = first.to(tl.float32), second.to(tl.float32)
        first, second = (x * cosine - y * sine).to(first.dtype), (y * cosine + x * sine).to(second.dtype)
    tl.store(target, first, mask=inside)
    tl.store(target + HALF, second, mask=inside)


@triton.jit
def _rope(  # type: ignore[no-untyped-def]
    whole_ptr, whole_stride, parts, strides, begins, cosine_ptr, sine_ptr, tokens, sequence,
    TURNED: tl.constexpr, JOINS: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program has HEADS neighbouring heads of ROWS / HEADS tokens. ``begins``: the first head of each part in the matrix, and one beyond the last."""
    groups = begins[len(parts)] // HEADS
    first_head = tl.program_id(0) % groups * HEADS
    row = tl.arange(0, ROWS)
    token = tl.program_id(0) // groups * (ROWS // HEADS) + row // HEADS
    head = first_head + row % HEADS
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (token < tokens)[:, None]
    if COLUMNS != HALF:
        inside &= column < HALF
    batch, position = (token // sequence).to(tl.int64), (token % sequence).to(tl.int64)
    whole_place = (token.to(tl.int64) * whole_stride + head * (2 * HALF))[:, None] + column
    table_place = (position * HALF)[:, None] + column
    for part in tl.static_range(len(parts)):
        if (first_head >= begins[part]) & (first_head < begins[part + 1]):
            stride = strides[part]
            part_place = (batch * stride[0] + position * stride[1] + (head - begins[part]).to(tl.int64) * stride[2])[:, None] + column
            _heads(whole_ptr, parts[part], cosine_ptr, sine_ptr, whole_place, part_place, table_place, inside, HALF, part < TURNED, JOINS)


def turn(whole_TY: Tensor, parts_BSHC: Sequence[Tensor], cosine_SJ: Tensor, sine_SJ: Tensor, turned: int, *, joins: bool) -> None:
    """Fill the parts from the columns of the matrix, the first ``turned`` of them turned; or, where it ``joins``, the matrix from the parts, turned back.

    The last dimension of all is contiguous.
    """
    tokens, half = whole_TY.shape[0], cosine_SJ.shape[1]
    heads = [part.shape[2] for part in parts_BSHC]
    common, columns = gcd(*heads), triton.next_power_of_2(half)
    together = min(common & -common, max(1, TILE // columns))
    rows = max(1, TILE // columns)
    grid = (triton.cdiv(tokens * together, rows) * (sum(heads) // together),)
    _rope[grid](
        whole_TY, whole_TY.stride(0), tuple(parts_BSHC), tuple(part.stride()[:3] for part in parts_BSHC), (0, *accumulate(heads)),
        cosine_SJ, sine_SJ, tokens, cosine_SJ.shape[0],
        TURNED=turned, JOINS=joins, HALF=half, HEADS=together, ROWS=rows, COLUMNS=columns, num_warps=WARPS,
    )  # fmt: skip
