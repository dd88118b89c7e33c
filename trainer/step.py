"""One optimizer step: micro-batches forward and backward, clipping, AdamW; gradients are freed at its end."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from simulator.components import Component, Phase
from simulator.specs import Plan
from trainer.measure.scope import backward, phase, scope
from trainer.model import MoETransformer
from trainer.model.router import update_selection_biases
from trainer.split_adamw import SplitAdamW

MicroBatch = tuple[Tensor, Tensor]
"""Inputs and labels, each (B, S) int64."""


class StepLosses(NamedTuple):
    """Mean losses of a step as tensors on the device (reading them waits for it), without coefficients."""

    language_model: Tensor
    load_balancing: Tensor | None
    router_z: Tensor | None
    counts_LE: list[Tensor]
    gradient_norm: Tensor


class _Logged(NamedTuple):
    language_model: Tensor
    load_balancing: Tensor | None
    router_z: Tensor | None
    counts_LE: list[Tensor]


def training_step(model: MoETransformer, optimizer: torch.optim.Optimizer, micro_batches: Iterator[MicroBatch], plan: Plan) -> StepLosses:
    """Take ``plan.accumulation`` micro-batches and make one optimizer step with the mean of their gradients."""
    logged = [_forward_backward(model, *next(micro_batches), plan.accumulation) for _ in range(plan.accumulation)]
    with phase(Phase.OPTIMIZER, Component.GRADIENT_CLIPPING):
        norm = _clip(model, optimizer, plan.gradient_clipping)
    with scope(Component.OPTIMIZER):
        optimizer.step()
    counts_LE = [torch.stack(counts).sum(0) for counts in zip(*(losses.counts_LE for losses in logged), strict=True)]
    update_selection_biases(model, counts_LE, model.spec.selection_bias_rate)
    optimizer.zero_grad(set_to_none=True)
    return StepLosses(
        _mean([losses.language_model for losses in logged]),
        _mean_if_present([losses.load_balancing for losses in logged]),
        _mean_if_present([losses.router_z for losses in logged]),
        counts_LE,
        norm,
    )


def _forward_backward(model: MoETransformer, inputs_BS: Tensor, labels_BS: Tensor, accumulation: int) -> _Logged:
    with phase(Phase.FORWARD, Component.INPUTS):
        losses = model(inputs_BS, labels_BS)
        with scope(Component.TOTAL_LOSS):
            total = losses.total / accumulation
    logged = _Logged(losses.language_model, losses.load_balancing, losses.router_z, losses.counts_LE)
    del losses
    backward(total)
    return logged


def _clip(model: nn.Module, optimizer: torch.optim.Optimizer, limit: float | None) -> Tensor:
    """Scale all gradients so that their norm is at most ``limit``; return the norm before that."""
    if isinstance(optimizer, SplitAdamW):
        return optimizer.limit_norm(limit)
    if limit is None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients, foreach=False)
    return nn.utils.clip_grad_norm_(model.parameters(), limit, foreach=False)


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()


def _mean_if_present(losses: list[Tensor | None]) -> Tensor | None:
    present = [loss for loss in losses if loss is not None]
    return _mean(present) if present else None
