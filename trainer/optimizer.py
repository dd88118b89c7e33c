"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) over weight-decay groups."""

from collections import defaultdict

import torch
from torch import nn

from simulator.specs import Plan
from trainer.specs import TrainingSpec
from trainer.split_adamw import SplitAdamW

_DEFAULTS = TrainingSpec()


def build_optimizer(
    model: nn.Module,
    plan: Plan,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = _DEFAULTS.adam_betas,
    epsilon: float = _DEFAULTS.adam_epsilon,
) -> torch.optim.AdamW | SplitAdamW:
    """AdamW by the plan's implementation; matrices decay, norms do not. A step that is replayed reads its rate from the device."""
    replayed = plan.implementation.launch == "graph"
    rate = torch.tensor(learning_rate, device=next(model.parameters()).device) if replayed else learning_rate
    groups = [{"params": parameters, "weight_decay": weight_decay if decays else 0.0} for (decays, _), parameters in _by_kind(list(model.parameters())).items()]
    if plan.precision == "bf16-split":
        return SplitAdamW(groups, lr=rate, betas=betas, eps=epsilon)
    fused = plan.implementation.optimizer == "fused"
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=fused, foreach=False, capturable=replayed)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let all groups go on at ``rate``."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _by_kind(parameters: list[nn.Parameter]) -> dict[tuple[bool, object], list[nn.Parameter]]:
    """Matrices, then vectors; what is sharded over different ranks apart, since no kernel takes both at once."""
    kinds: dict[tuple[bool, object], list[nn.Parameter]] = defaultdict(list)
    for parameter in sorted(parameters, key=lambda parameter: parameter.dim() <= 1):
        kinds[parameter.dim() > 1, getattr(parameter, "device_mesh", None)].append(parameter)
    return kinds
