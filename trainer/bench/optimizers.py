"""One step of every AdamW that a plan can name, over a matrix of the size of a layer of experts: time, bytes/s, error against float64."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from simulator.specs import Implementation, Plan
from trainer.bench.kernels import OPTIMIZER, Row
from trainer.bench.shape import BenchShape
from trainer.bench.timing import timed
from trainer.optimizer import build_optimizer
from trainer.split_adamw import SplitAdamW, joined

PLANS = {"fused": ("fp32", "fused"), "for-loop": ("fp32", "for-loop"), "split": ("bf16-split", "fused")}
"""Name to ``Plan.precision`` and ``Plan.implementation.optimizer``."""
MOVED_BYTES = {"fused": 28, "for-loop": 28, "split": 26}
"""Of a weight: parameter, gradient and moments read, all but the gradient written; fp32, or two bytes each for parameter, gradient and remainder."""
RATE, DECAY, STEPS = 1e-3, 0.1, 3


def measure_optimizers(shape: BenchShape, *, device: str, repeats: int) -> list[Row]:
    """All of them on the same weights and gradients; ``experts`` x ``width`` x ``expert_width`` weights."""
    generator = torch.Generator(device).manual_seed(0)
    weight, gradient = (torch.randn(shape.experts, shape.width, shape.expert_width, generator=generator, device=device).bfloat16() for _ in range(2))
    expected = _formula(weight.double(), gradient.double())
    return [_measure(name, shape, weight, gradient, expected, device, repeats) for name in PLANS]


def _measure(name: str, shape: BenchShape, weight: Tensor, gradient: Tensor, expected: Tensor, device: str, repeats: int) -> Row:
    optimizer, parameter = _optimizer(name, weight, gradient)
    for _ in range(STEPS):
        optimizer.step()
    remainder = optimizer.state[parameter].get("remainder")
    got = parameter.detach() if remainder is None else joined(parameter.detach(), remainder)
    moved = float((expected - weight.double()).norm())
    error = float((got.double() - expected).norm()) / moved
    forward = timed(optimizer.step, device, repeats)
    return Row(
        operation=OPTIMIZER, kernel=name, shape=shape, forward=forward, backward=None, forward_flops=0.0, backward_flops=0.0,
        forward_bytes=MOVED_BYTES[name] * weight.numel(), backward_bytes=0, forward_error=error, gradient_error=None,
    )  # fmt: skip


def _optimizer(name: str, weight: Tensor, gradient: Tensor) -> tuple[torch.optim.AdamW | SplitAdamW, nn.Parameter]:
    precision, implementation = PLANS[name]
    dtype = torch.bfloat16 if precision == "bf16-split" else torch.float32
    module = nn.ParameterDict({"weight": nn.Parameter(weight.to(dtype, copy=True))})
    # As plans launch it that replay their steps. One launch a formula is another program there: its step counters move to the device.
    launch: Literal["eager", "graph"] = "graph" if weight.is_cuda and name != "for-loop" else "eager"
    plan = Plan(sequence=1, micro_batch=1, precision=precision, implementation=Implementation(optimizer=implementation, launch=launch))
    parameter = module["weight"]
    assert isinstance(parameter, nn.Parameter)
    parameter.grad = gradient.to(dtype)
    return build_optimizer(module, plan, learning_rate=RATE, weight_decay=DECAY, betas=(0.9, 0.95), epsilon=1e-8), parameter


def _formula(weight: Tensor, gradient: Tensor) -> Tensor:
    """``STEPS`` steps with the same gradient (arXiv 1711.05101, algorithm 2)."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, STEPS + 1):
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient.square()
        denominator = second.sqrt() / math.sqrt(1 - 0.95**step) + 1e-8
        weight = weight * (1 - RATE * DECAY) - RATE / (1 - 0.9**step) * first / denominator
    return weight
