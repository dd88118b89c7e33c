"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) over weight-decay groups."""

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
    """AdamW by the plan's implementation; matrices decay, norms do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if plan.precision == "bf16-split":
        return SplitAdamW(groups, lr=learning_rate, betas=betas, eps=epsilon)
    fused = plan.implementation.optimizer == "fused"
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon, fused=fused, foreach=False)
