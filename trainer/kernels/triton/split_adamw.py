"""AdamW over fp32 weights of which the upper 16 bits are the bf16 parameter and the lower ones are the optimizer's.

One pass: 14 bytes read and 12 written for each weight.
"""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _update(  # type: ignore[no-untyped-def]
    parameter_ptr, remainder_ptr, gradient_ptr, first_ptr, second_ptr, step_ptr, scale_ptr, rate_ptr, square_ptr, count,
    decay, log_beta1, log_beta2, beta1, beta2, epsilon, WITH_SQUARES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    step, rate = tl.load(step_ptr), tl.load(rate_ptr)
    gradient = tl.load(gradient_ptr + place, mask=inside, other=0.0).to(tl.float32) * tl.load(scale_ptr)
    if WITH_SQUARES:
        tl.store(square_ptr + tl.program_id(0), tl.sum(gradient * gradient, axis=0))
    high = tl.load(parameter_ptr + place, mask=inside).to(tl.int16, bitcast=True).to(tl.int32)
    low = tl.load(remainder_ptr + place, mask=inside).to(tl.int32)
    weight = ((high << 16) + low).to(tl.float32, bitcast=True)
    first = tl.load(first_ptr + place, mask=inside)
    second = tl.load(second_ptr + place, mask=inside)
    first = first + (1 - beta1) * (gradient - first)
    second = beta2 * second + (1 - beta2) * gradient * gradient
    denominator = tl.sqrt(second) / tl.sqrt(1 - tl.exp(step * log_beta2)) + epsilon
    weight = weight * (1 - rate * decay) - rate / (1 - tl.exp(step * log_beta1)) * first / denominator
    bits = weight.to(tl.int32, bitcast=True)
    high = (bits + 0x8000) >> 16
    tl.store(parameter_ptr + place, high.to(tl.int16).to(tl.bfloat16, bitcast=True), mask=inside)
    tl.store(remainder_ptr + place, (bits - (high << 16)).to(tl.int16), mask=inside)
    tl.store(first_ptr + place, first, mask=inside)
    tl.store(second_ptr + place, second, mask=inside)


BLOCK = 2048
"""Weights of one program."""


def parts(parameter: Tensor) -> int:
    """Programs that update ``parameter``: numbers that ``squares`` takes."""
    return int(triton.cdiv(parameter.numel(), BLOCK))


def update(
    parameter: Tensor, remainder: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: Tensor, scale: Tensor, rate: Tensor, squares: Tensor | None,
    *, decay: float, log_betas: tuple[float, float], betas: tuple[float, float], epsilon: float,
) -> None:  # fmt: skip
    """One step of one parameter, in place. On the device, scalars: ``step``, the number of this step; ``scale``, which multiplies the gradient; ``rate``.

    ``squares``: gets the sum of squares of the scaled gradient over every ``BLOCK`` elements.
    """
    _update[(parts(parameter),)](
        parameter, remainder, gradient, first, second, step, scale, rate, squares, parameter.numel(),
        decay, *log_betas, *betas, epsilon, WITH_SQUARES=squares is not None, BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
