"""AdamW over fp32 weights of which the upper 16 bits are the bf16 parameter and the lower ones are the optimizer's.

One pass: 14 bytes read and 12 written for each weight. One launch for any number of tensors: a program finds its own by a table on the device.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Weights of one program."""
Tensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Parameter, remainder, gradient, first and second moment, step."""
TYPES = (torch.bfloat16, torch.int16, torch.bfloat16, torch.float32, torch.float32, torch.float32)
Row = tuple[int, ...]
"""What the device must know of one parameter: the addresses of its tensors in their order, and the number of its weights."""
_COLUMNS = len(TYPES) + 2
"""Numbers that the table has for a parameter: its row, and the first program that is its own."""
_LEAST_STARTS = 8
"""The starts of a launch fill 64 bytes at least, so that every part of the table begins on a line of the cache."""
_REGISTERS = 64
"""Of a thread: four programs at once on a multiprocessor, where the compiler left alone takes more for three."""


class Launch(NamedTuple):
    """Part of the table for the parameters of one launch."""

    starts: Tensor
    """First program of each parameter, and what no program reaches up to a power of two; int64."""
    rows: Tensor
    programs: int


def row(tensors: Tensors) -> Row:
    """One parameter as the device sees it."""
    return (*map(Tensor.data_ptr, tensors), tensors[0].numel())


def table(groups: Sequence[Sequence[Tensors]], device: torch.device) -> list[Launch]:
    """One launch for each of ``groups``, told to the device by one copy that the host does not wait for; tensors are contiguous and of ``TYPES``.

    Also while a CUDA graph is captured: its replays read host memory that stays the graph's (``CachingHostAllocator`` of PyTorch 2.11 and later).
    """
    numbers: list[int] = []
    parts: list[tuple[int, int, int]] = []
    for group in groups:
        rows, begins, programs = [row(tensors) for tensors in group], [], 0
        assert all(tensor.is_contiguous() and tensor.dtype is kind for tensors in group for tensor, kind in zip(tensors, TYPES, strict=True))
        for *_, count in rows:
            begins.append(programs)
            programs += -(-count // BLOCK)
        starts = max(triton.next_power_of_2(len(rows)), _LEAST_STARTS)
        parts.append((len(numbers), starts, programs))
        numbers += begins + [programs] * (starts - len(rows))
        for each, begin in zip(rows, begins, strict=True):
            numbers += (*each, begin)
    on_host = torch.empty(len(numbers), dtype=torch.int64, pin_memory=device.type == "cuda")
    on_host.numpy()[:] = numbers
    on_device = on_host.to(device, non_blocking=True)
    return [Launch(on_device[at : at + starts], on_device[at + starts :], programs) for at, starts, programs in parts]


@triton.jit
def _update(  # type: ignore[no-untyped-def]
    starts_ptr, rows_ptr, scale_ptr, rate_ptr, square_ptr, decay, log_beta1, log_beta2, beta1, beta2, epsilon,
    WITH_SQUARES: tl.constexpr, STARTS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    tensor = tl.sum((tl.load(starts_ptr + tl.arange(0, STARTS)) <= program).to(tl.int32), axis=0) - 1
    row_ptr = rows_ptr + tensor * COLUMNS
    place = (program - tl.load(row_ptr + 7)) * BLOCK
    parameter = tl.load(row_ptr) + 2 * place
    remainder = tl.load(row_ptr + 1) + 2 * place
    gradient = tl.load(row_ptr + 2) + 2 * place
    first = tl.load(row_ptr + 3) + 4 * place
    second = tl.load(row_ptr + 4) + 4 * place
    step = tl.load(tl.load(row_ptr + 5).to(tl.pointer_type(tl.float32)))
    left = tl.load(row_ptr + 6) - place
    scale, rate = tl.load(scale_ptr), tl.load(rate_ptr)
    if (left >= BLOCK) & (((parameter | remainder | gradient | first | second) & 15) == 0):
        square = _block(
            parameter, remainder, gradient, first, second, left, step, scale, rate,
            decay, log_beta1, log_beta2, beta1, beta2, epsilon, True, BLOCK,
        )  # fmt: skip
    else:
        square = _block(
            parameter, remainder, gradient, first, second, left, step, scale, rate,
            decay, log_beta1, log_beta2, beta1, beta2, epsilon, False, BLOCK,
        )  # fmt: skip
    if WITH_SQUARES:
        tl.store(square_ptr + program, square)


@triton.jit
def _block(  # type: ignore[no-untyped-def]
    parameter, remainder, gradient, first, second, left, step, scale, rate,
    decay, log_beta1, log_beta2, beta1, beta2, epsilon, WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Update the weights at these addresses; the sum of squares of their scaled gradients. ``WHOLE``: a full block, all of it at multiples of 16 bytes."""
    place = tl.arange(0, BLOCK)
    inside = None if WHOLE else place < left
    parameter_ptr = _pointer(parameter, tl.int16, WHOLE) + place
    remainder_ptr = _pointer(remainder, tl.int16, WHOLE) + place
    gradient_ptr = _pointer(gradient, tl.bfloat16, WHOLE) + place
    first_ptr = _pointer(first, tl.float32, WHOLE) + place
    second_ptr = _pointer(second, tl.float32, WHOLE) + place
    scaled = tl.load(gradient_ptr, mask=inside, other=None if WHOLE else 0.0).to(tl.float32) * scale
    high = tl.load(parameter_ptr, mask=inside).to(tl.int32)
    low = tl.load(remainder_ptr, mask=inside).to(tl.int32)
    weight = ((high << 16) + low).to(tl.float32, bitcast=True)
    first_moment = tl.load(first_ptr, mask=inside)
    second_moment = tl.load(second_ptr, mask=inside)
    first_moment = first_moment + (1 - beta1) * (scaled - first_moment)
    second_moment = beta2 * second_moment + (1 - beta2) * scaled * scaled
    denominator = tl.sqrt(second_moment) / tl.sqrt(1 - tl.exp(step * log_beta2)) + epsilon
    weight = weight * (1 - rate * decay) - rate / (1 - tl.exp(step * log_beta1)) * first_moment / denominator
    bits = weight.to(tl.int32, bitcast=True)
    high = (bits + 0x8000) >> 16
    tl.store(parameter_ptr, high.to(tl.int16), mask=inside)
    tl.store(remainder_ptr, (bits - (high << 16)).to(tl.int16), mask=inside)
    tl.store(first_ptr, first_moment, mask=inside)
    tl.store(second_ptr, second_moment, mask=inside)
    return tl.sum(scaled * scaled, axis=0)


@triton.jit
def _pointer(address, item: tl.constexpr, ALIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    pointer = address.to(tl.pointer_type(item))
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


def update(
    launch: Launch, scale: Tensor, rate: Tensor, squares: Tensor | None,
    *, decay: float, log_betas: tuple[float, float], betas: tuple[float, float], epsilon: float,
) -> None:  # fmt: skip
    """One step of the tensors of ``launch``, in place. On the device, scalars: ``scale``, which multiplies the gradients; ``rate``.

    ``squares``: gets the sum of squares of the scaled gradients of each program.
    """
    _update[(launch.programs,)](
        launch.starts, launch.rows, scale, rate, squares, decay, *log_betas, *betas, epsilon,
        WITH_SQUARES=squares is not None, STARTS=launch.starts.numel(), COLUMNS=_COLUMNS, BLOCK=BLOCK, num_warps=8, maxnreg=_REGISTERS,
    )  # fmt: skip
