"""Make an initialised model of a specification under a plan."""

import torch
from torch import nn

from configuration.errors import ConfigurationError
from simulator.specs import ModelSpec, Plan
from trainer.model.compilation import compile_blocks
from trainer.model.linear import RMSNorm
from trainer.model.recomputation import recompute
from trainer.model.transformer import MoETransformer

INITIAL_DEVIATION = 0.02
"""Standard deviation of all matrices (GPT-2, Radford et al. 2019); those that write to the residual stream get it over sqrt(2 layers)."""


def build_model(spec: ModelSpec, plan: Plan, *, seed: int, device: str = "cpu") -> MoETransformer:
    """Build and initialise; the same seed gives the same weights on every device and under every plan.

    Raises ConfigurationError when an implementation of the plan cannot run the model's shapes.
    """
    plan.check_against(spec)
    _check_alignment(spec, plan)
    _check_kernels_run_on(device, plan)
    model = MoETransformer(spec, plan)
    initialise(model, seed)
    if plan.precision in ("bf16", "bf16-split"):
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    model.to(device)
    recompute(model, plan)
    if plan.implementation.compile == "block":
        compile_blocks(model)
    return model


def initialise(model: nn.Module, seed: int) -> None:
    """Normal matrices, norms at one; by name order from one generator."""
    generator = torch.Generator().manual_seed(seed)
    layers = model.spec.layers if isinstance(model, MoETransformer) else 1
    norms = {id(module.weight) for module in model.modules() if isinstance(module, RMSNorm)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if id(parameter) in norms:
                parameter.fill_(1.0)
                continue
            writes_to_residual = name.endswith(("attention.output.weight", "down", "down.weight"))
            deviation = INITIAL_DEVIATION / (2 * layers) ** 0.5 if writes_to_residual else INITIAL_DEVIATION
            # Gate and up are drawn one after the other, as if each had its own matrix.
            halves = parameter.chunk(2, -1) if name.endswith("gate_up") else (parameter,)
            for half in halves:
                half.copy_(torch.empty_like(half, memory_format=torch.contiguous_format).normal_(0.0, deviation, generator=generator))


def _check_kernels_run_on(device: str, plan: Plan) -> None:
    if plan.implementation.swiglu == "triton" and not device.startswith("cuda"):
        raise ConfigurationError(f"plan.implementation.swiglu triton needs a CUDA device (legal on {device}: eager, recompute)")
    if plan.implementation.rope == "triton" and not device.startswith("cuda"):
        raise ConfigurationError(f"plan.implementation.rope triton needs a CUDA device (legal on {device}: eager)")
    if plan.implementation.launch == "graph" and not device.startswith("cuda"):
        raise ConfigurationError(f"plan.implementation.launch graph needs a CUDA device (legal on {device}: eager)")


def _check_alignment(spec: ModelSpec, plan: Plan) -> None:
    """The grouped GEMM wants rows of a multiple of 16 bytes: 4 fp32 or 8 bf16 elements."""
    if plan.implementation.experts in ("loop", "batched"):
        return
    multiple = 4 if plan.precision == "fp32" else 8
    widths = {"width": spec.width} | {
        f"blocks.{index}.feed_forward.expert_width": expert_width
        for index, group in enumerate(spec.blocks)
        if (expert_width := getattr(group.feed_forward, "expert_width", None)) is not None
    }
    if not spec.expert_counts:
        return
    for field, value in widths.items():
        if value % multiple:
            kernel = f"implementation.experts {plan.implementation.experts} in {plan.precision}"
            raise ConfigurationError(f"model.{field} ({value}) must be a multiple of {multiple} for {kernel}; or take experts: loop")
