"""What calibration needs of one device: kernels timed alone over shapes, host overhead, optimizer.

Rows are those that ``calibration fit`` reads: ``kind``, the shape, ``us`` of one call (median), and all repeats.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F

from trainer.bench.kernels import DTYPES
from trainer.bench.launches import launch_rows
from trainer.bench.timing import Timing, host_timed, timed
from trainer.split_adamw import SplitAdamW

Row = dict[str, Any]
Case = tuple[str, Row, Callable[[], object]]

SIZES = {
    "cpu": {
        "gemm": (128, 512, 1024), "experts": (4, 16), "width": (64, 128), "rows": (512, 2048), "elements": (2**14, 2**18, 2**22),
        "uneven_rows": (512, 2048), "sequence": (128, 512), "parameters": (10**5, 10**6),
    },
    "cuda": {
        "gemm": (512, 1024, 2048, 4096, 8192), "experts": (8, 32, 64), "width": (512, 1024), "rows": (256, 65536, 262144),
        "elements": (2**14, 2**18, 2**24, 2**26, 2**28), "uneven_rows": (2**15, 2**17), "sequence": (512, 2048, 8192), "parameters": (10**6, 10**8),
    },
}  # fmt: skip
"""Shapes by device: all combinations where several dimensions go together. Kernels that move memory and do little else are timed on less than 2 and on more
than 50 MB, what lies between comes from a cache; grouped products of one width alone would leave their FLOPs and bytes together."""


def device_rows(device: str, dtype: str, repeats: int, log: Callable[[str], None]) -> list[Row]:
    """Every row of the suite."""
    rows = []
    for kind, fields, work in _cases(device, dtype):
        rows.append(_row(kind, fields, timed(work, device, repeats)))
        log(f"{kind} {fields}: {rows[-1]['us']:.1f} µs, issued by the {rows[-1]['issued']}")
    for operation, work in _host_cases(device):
        rows.append(_row("host_per_call", {"op": operation}, host_timed(work, device, repeats)))
    if device == "cuda":
        rows += [_row(kind, fields, timing) for kind, fields, timing in launch_rows(repeats)]
    return rows


def _row(kind: str, fields: Row, timing: Timing) -> Row:
    repeats_us = [seconds * 1e6 for seconds in timing.repeats_s]
    return {
        "kind": kind,
        **fields,
        "us": timing.median_s * 1e6,
        "us_min": min(repeats_us),
        "us_max": max(repeats_us),
        "repeats_us": repeats_us,
        "outliers": timing.outliers,
        "issued": timing.issued,
    }


def _cases(device: str, dtype: str) -> Iterator[Case]:
    yield from _products(device, dtype)
    yield from _attention(device, dtype)
    yield from _moves(device, dtype)
    yield from uneven_moves(device, dtype)
    yield from _routing(device, dtype)
    yield from _optimizers(device)


def _draw(device: str, dtype: str, *size: int) -> torch.Tensor:
    return torch.randn(*size, device=device).to(DTYPES[dtype])


def _products(device: str, dtype: str) -> Iterator[Case]:
    sizes = SIZES[device]
    for m in sizes["gemm"]:
        for n in sizes["gemm"]:
            for k in sizes["gemm"]:
                left, right = _draw(device, dtype, m, k), _draw(device, dtype, k, n)
                yield "gemm", {"m": m, "n": n, "k": k, "dtype": dtype, "layout": "NN"}, partial(torch.mm, left, right)
    for width, experts, rows in product(sizes["width"], sizes["experts"], sizes["rows"]):
        x, weight = _draw(device, dtype, rows, width), _draw(device, dtype, experts, width, width)
        for skew, ends in (("uniform", _ends(experts, rows, 0.0)), ("zipf1", _ends(experts, rows, 1.0))):
            counts = ends.diff(prepend=ends.new_zeros(1))
            fields = {"experts": experts, "tokens": rows, "k": width, "n": width, "skew": skew, "dtype": dtype}
            fields["max_over_mean"] = float(counts.max() * experts / rows)
            on_device = ends.to(device)
            yield "grouped_gemm", fields, partial(F.grouped_mm, x, weight, offs=on_device)  # type: ignore[attr-defined, unused-ignore]


def _ends(experts: int, rows: int, exponent: float) -> torch.Tensor:
    """Ends of groups whose sizes fall as rank to the minus ``exponent``."""
    share = torch.arange(1, experts + 1, dtype=torch.float64) ** -exponent
    return (share.cumsum(0) / share.sum() * rows).round().int()


def _attention(device: str, dtype: str) -> Iterator[Case]:
    heads, tokens = (16, 16384) if device == "cuda" else (4, 1024)
    for sequence in SIZES[device]["sequence"]:
        for head_dim in (64, 128):
            batch = max(1, tokens // sequence)
            tensors = [_draw(device, dtype, batch, heads, sequence, head_dim).requires_grad_() for _ in range(3)]
            fields = {"batch": batch, "heads": heads, "sequence": sequence, "head_dim": head_dim, "dtype": dtype}

            query, key, value = tensors
            forward = partial(F.scaled_dot_product_attention, query, key, value, is_causal=True)
            yield "attention_forward", fields, forward
            yield "attention_forward_backward", fields, partial(_both, forward, tensors, torch.randn_like(query))


def _both(forward: Callable[[], torch.Tensor], leaves: list[torch.Tensor], grad: torch.Tensor) -> object:
    return torch.autograd.grad(forward(), leaves, grad)


def _moves(device: str, dtype: str) -> Iterator[Case]:
    item = DTYPES[dtype].itemsize
    for elements in SIZES[device]["elements"]:
        x, y = _draw(device, dtype, elements), _draw(device, dtype, elements)
        out = torch.empty_like(x)
        common = {"elements": elements, "dtype": dtype}
        yield "add", common | {"bytes": 3 * item * elements}, partial(torch.add, x, y, out=out)
        yield "copy", common | {"bytes": 2 * item * elements}, partial(out.copy_, x)
        yield "silu", common | {"bytes": 2 * item * elements}, partial(F.silu, x)
        if dtype == "bf16":
            yield "cast_bf16_fp32", {"elements": elements, "bytes": 6 * elements}, x.float
        if device == "cuda":
            at_host = torch.empty_like(x, device="cpu").pin_memory()
            yield "copy_to_device", common | {"bytes": item * elements}, partial(out.copy_, at_host, non_blocking=True)
            yield "copy_to_host", common | {"bytes": item * elements}, partial(at_host.copy_, x, non_blocking=True)


def uneven_moves(device: str, dtype: str) -> Iterator[Case]:
    """Element-wise kernels that go element by element: broadcasts and half of every row; and casts to the narrower type, which do not.

    On a GPU 268 MB and more are moved, which no cache holds. ``bytes``: what is read and written, once each.
    """
    item, width = DTYPES[dtype].itemsize, 2048
    for rows in SIZES[device]["uneven_rows"]:
        elements = rows * width
        common = {"rows": rows, "width": width, "elements": elements, "dtype": dtype}
        x, row, column, out = (_draw(device, dtype, *size) for size in ((rows, width), (width,), (rows, 1), (rows, width)))
        yield "multiply_by_row", common | {"bytes": item * (2 * elements + width)}, partial(torch.mul, x, row, out=out)
        yield "multiply_by_column", common | {"bytes": item * (2 * elements + rows)}, partial(torch.mul, x, column, out=out)
        half = _draw(device, dtype, rows, 2 * width)[:, :width]
        yield "copy_of_half", common | {"bytes": item * 2 * elements}, partial(out.copy_, half)
        yield "silu_of_half", common | {"bytes": item * 2 * elements}, partial(F.silu, half)
        if dtype == "bf16":
            wide = x.float()
            yield "cast_fp32_bf16", common | {"bytes": 6 * elements}, partial(out.copy_, wide)


def _routing(device: str, dtype: str) -> Iterator[Case]:
    width = 1024 if device == "cuda" else 128
    for rows in SIZES[device]["rows"]:
        tokens = rows // 2
        x, source = _draw(device, dtype, tokens, width), _draw(device, dtype, rows, width)
        token_of_row = torch.randperm(rows, device=device) // 2
        weight = _draw(device, dtype, width)
        yield "rms_norm_forward", {"tokens": tokens, "width": width, "dtype": dtype}, partial(F.rms_norm, x, (width,), weight)
        yield "index_select", {"rows": rows, "width": width, "dtype": dtype}, partial(x.index_select, 0, token_of_row)
        yield "index_add", {"rows": rows, "width": width, "dtype": dtype}, partial(x.index_add, 0, token_of_row, source)
        for experts in SIZES[device]["experts"]:
            score, choice = torch.rand(tokens, experts, device=device), torch.randint(experts, (rows,), device=device)
            yield "topk", {"tokens": tokens, "experts": experts, "top_k": 2}, partial(score.topk, 2)
            yield "argsort_stable", {"rows": rows, "experts": experts}, partial(choice.argsort, stable=True)


def _optimizers(device: str) -> Iterator[Case]:
    for parameters in SIZES[device]["parameters"]:
        side = math.isqrt(parameters // 10)
        tensors = [torch.nn.Parameter(torch.randn(side, side, device=device)) for _ in range(10)]
        for tensor in tensors:
            tensor.grad = torch.randn_like(tensor)
        # The same kernels: fused, its step counters are on the device anyway.
        optimizer = torch.optim.AdamW(tensors, fused=True, capturable=device == "cuda")
        yield "adamw_fused", {"parameters": 10 * side * side, "tensors": 10}, optimizer.step
        if device == "cuda":
            narrow = [torch.nn.Parameter(tensor.detach().bfloat16()) for tensor in tensors]
            for tensor in narrow:
                tensor.grad = torch.randn_like(tensor)
            split = SplitAdamW([{"params": narrow}], lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
            yield "adamw_split", {"parameters": 10 * side * side, "tensors": 10}, split.step


def _host_cases(device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    x = torch.zeros(8, 8, device=device)
    layer = torch.nn.Linear(8, 8, device=device)
    yield "add_", lambda: x.add_(1.0)
    yield "mm", lambda: torch.mm(x, x)
    yield "silu", lambda: F.silu(x)
    yield "view", lambda: x.view(64)
    yield "linear_autograd_forward", lambda: layer(x)
    yield "linear_autograd_forward_backward", lambda: layer(x).sum().backward()
