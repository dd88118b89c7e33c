"""One optimizer step: micro-batches forward and backward, clipping, AdamW; gradients are freed at its end."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from simulator.components import Component, Phase
from simulator.specs import Plan
from trainer.beside import updates_beside
from trainer.measure.scope import backward, phase, scope
from trainer.model import MoETransformer
from trainer.model.capacity import dropped_choices
from trainer.model.labels import labelled
from trainer.model.moe import capacities
from trainer.model.router import update_selection_biases
from trainer.parallel.gradient_norm import local_gradients, norm_of, square_sum
from trainer.parallel.parallelize import Parallel
from trainer.parallel.pipeline import Pipeline
from trainer.parallel.world import World
from trainer.split_adamw import SplitAdamW

MicroBatch = tuple[Tensor, Tensor]
"""Inputs and labels, each (B, S) int64; a label of ``IGNORED`` does not count."""


class StepLosses(NamedTuple):
    """Mean losses of a step as tensors on the device (reading them waits for it), without coefficients."""

    language_model: Tensor
    load_balancing: Tensor | None
    router_z: Tensor | None
    counts_LE: list[Tensor]
    dropped_L: list[Tensor]
    """Choices of each MoE layer that found no row; empty where no layer has a capacity."""
    gradient_norm: Tensor


class _Passed(NamedTuple):
    """One micro-batch of this rank: its labelled tokens, and means over them."""

    tokens: float | Tensor
    language_model: Tensor
    load_balancing: Tensor | None
    router_z: Tensor | None
    counts_LE: list[Tensor]


def training_step(
    model: MoETransformer, optimizer: torch.optim.Optimizer, micro_batches: Iterator[MicroBatch], plan: Plan, parallel: Parallel | None = None
) -> StepLosses:
    """Take this rank's ``plan.accumulation`` micro-batches and make one optimizer step.

    What is minimised is the mean over all labelled tokens of all ranks; a micro-batch's auxiliary losses weigh as much as its tokens.
    """
    parallel = parallel or Parallel(World(plan), model)
    passed = []
    if parallel.pipeline is not None:
        passed = _pipelined(parallel.pipeline, model, [next(micro_batches) for _ in range(plan.accumulation)])
    for index in range(plan.accumulation if parallel.pipeline is None else 0):
        parallel.before_micro_batch(last=index == plan.accumulation - 1)
        passed.append(_forward_backward(model, optimizer, *next(micro_batches), plan))
    with phase(Phase.OPTIMIZER, Component.GRADIENT_SYNC):
        parallel.finish_gradients()
    sums = _sums(passed)
    if not parallel.has_loss:
        sums["tokens"].zero_()
    tokens, norm = _update(model, optimizer, sums, plan, parallel)
    optimizer.zero_grad(set_to_none=True)
    counts_LE = _counts(passed, parallel)
    update_selection_biases(model, counts_LE, model.spec.selection_bias_rate)
    means = {name: value / tokens for name, value in sums.items()}
    return StepLosses(means["language_model"], means.get("load_balancing"), means.get("router_z"), counts_LE, _dropped(passed, parallel), norm)


def _forward_backward(model: MoETransformer, optimizer: torch.optim.Optimizer, inputs_BS: Tensor, labels_BS: Tensor, plan: Plan) -> _Passed:
    with phase(Phase.FORWARD, Component.INPUTS):
        tokens = _tokens(labels_BS, plan)
        losses = model(inputs_BS, labels_BS)
        with scope(Component.TOTAL_LOSS):
            total = losses.total * (tokens / plan.tokens_per_step)
    passed = _Passed(tokens, losses.language_model, losses.load_balancing, losses.router_z, losses.counts_LE)
    del losses
    if isinstance(optimizer, SplitAdamW) and _updated_in_backward(plan):
        with updates_beside(optimizer, torch.as_tensor(plan.tokens_per_step / tokens)):
            backward(total)
    else:
        backward(total)
    return passed


def _updated_in_backward(plan: Plan) -> bool:
    """Whether split AdamW is captured beside the backward: one micro-batch of one rank, of which nothing asks for the norm before the update.

    Only where a step is captured is the GPU never waiting for the host, so that there is something to gain.
    """
    alone = plan.ranks == plan.accumulation == 1 and plan.gradient_clipping is None
    return alone and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _pipelined(pipeline: Pipeline, model: MoETransformer, batches: list[MicroBatch]) -> list[_Passed]:
    """All micro-batches through the pipeline; of each what this stage has: its routers' share of the auxiliary losses, the loss on the last stage."""
    tokens = [_tokens(labels_BS, pipeline.plan) for _, labels_BS in batches]
    losses, records = pipeline.run(batches, tokens)
    return [
        _Passed(
            count,
            loss,
            _share([record.load_balancing for record in left], loss, model) if model.spec.load_balancing_loss else None,
            _share([record.router_z for record in left], loss, model) if model.spec.router_z_loss else None,
            [record.counts_E for record in left],
        )
        for count, loss, left in zip(tokens, losses, records, strict=True)
    ]


def _share(values: list[Tensor | None], like: Tensor, model: MoETransformer) -> Tensor | None:
    """What this stage's layers add to the mean over all MoE layers, zero where it has none; None for a model without."""
    if not model.spec.moe_layers:
        return None
    return torch.stack([torch.zeros_like(like), *(value.detach() for value in values if value is not None)]).sum() / model.spec.moe_layers


def _tokens(labels_BS: Tensor, plan: Plan) -> float | Tensor:
    """This rank's part of the labelled tokens of a micro-batch, which the ranks of a tensor group share evenly."""
    return labelled(labels_BS) / plan.tp


def _sums(passed: list[_Passed]) -> dict[str, Tensor]:
    """Over the micro-batches of this rank: tokens, and each loss times its tokens."""
    like = passed[0].language_model
    weights = torch.stack([torch.as_tensor(micro_batch.tokens, device=like.device) for micro_batch in passed]).double()
    sums = {"tokens": weights.sum()}
    for name in ("language_model", "load_balancing", "router_z"):
        values = [value for micro_batch in passed if (value := getattr(micro_batch, name)) is not None]
        if values:
            # The mean over no token is no number.
            sums[name] = torch.where(weights > 0, torch.stack(values).double() * weights, 0.0).sum()
    return sums


def _update(model: MoETransformer, optimizer: torch.optim.Optimizer, sums: dict[str, Tensor], plan: Plan, parallel: Parallel) -> tuple[Tensor, Tensor]:
    """Step by the gradients of all ranks; the labelled tokens and the gradient norm of all of them. ``sums`` become those of all ranks, without the tokens."""
    if isinstance(optimizer, SplitAdamW) and _norm_can_wait(plan, sums):
        with scope(Component.GRADIENT_SYNC):
            sums.update(zip(sums, parallel.summed(torch.stack(list(sums.values()))), strict=True))
        tokens = sums.pop("tokens")
        with scope(Component.OPTIMIZER):
            if _updated_in_backward(plan):
                return tokens, optimizer.measured_norm()
            optimizer.scale_gradients(plan.tokens_per_step / tokens)
            optimizer.measure_norm()
            optimizer.step()
            return tokens, optimizer.measured_norm()
    norm = _gradient_norm(sums, parallel)
    tokens = sums.pop("tokens")
    with scope(Component.GRADIENT_CLIPPING):
        norm = _scale(model, optimizer, norm, tokens if tokens.is_cuda else round(float(tokens)), plan)
    with scope(Component.OPTIMIZER):
        optimizer.step()
    return tokens, norm


def _norm_can_wait(plan: Plan, sums: dict[str, Tensor]) -> bool:
    """Whether nothing asks for the norm before the update, which then takes it in the same pass: no limit, and every gradient whole on every rank."""
    return plan.gradient_clipping is None and plan.tp * plan.pp * plan.ep * plan.etp == 1 and not plan.zero_stage and sums["tokens"].is_cuda


def _gradient_norm(sums: dict[str, Tensor], parallel: Parallel) -> Tensor:
    """The norm of the gradient of all ranks; the same collective makes ``sums`` those of all ranks."""
    with scope(Component.GRADIENT_CLIPPING):
        if parallel.world.plan.ranks == 1:
            return norm_of(list(local_gradients(parallel.model).values()))
        square = square_sum(parallel.model, parallel.world).double()
    with scope(Component.GRADIENT_SYNC):
        *totals, square = parallel.summed(torch.stack([*sums.values(), square]))
    sums.update(zip(sums, totals, strict=True))
    norm: Tensor = square.sqrt()
    return norm


def _scale(model: MoETransformer, optimizer: torch.optim.Optimizer, norm: Tensor, tokens: int | Tensor, plan: Plan) -> Tensor:
    """Divide all gradients by the tokens that there were instead of those planned, and limit their norm; return the norm before that limit."""
    scale: float | Tensor = plan.tokens_per_step / tokens
    scales: list[float | Tensor] = []
    if not isinstance(scale, float) or scale != 1.0:
        norm, scales = norm * scale, [scale]
    if plan.gradient_clipping is not None:
        scales.append((plan.gradient_clipping / (norm + 1e-6)).clamp_(max=1.0))
    if not scales:
        return norm
    total = scales[0] if len(scales) == 1 else scales[0] * scales[1]
    if isinstance(optimizer, SplitAdamW):
        optimizer.scale_gradients(torch.as_tensor(total))
    else:
        for gradient in local_gradients(model).values():
            gradient.mul_(total)
    return norm


def _dropped(passed: list[_Passed], parallel: Parallel) -> list[Tensor]:
    """Choices of each MoE layer of this stage that found no row, in all micro-batches of all ranks; empty where no layer has a capacity."""
    plan = parallel.world.plan
    rows_L = capacities(parallel.model, plan.own_tokens)
    if not any(rows_L):
        return []
    dropped = [[dropped_choices(counts_E, rows) for counts_E, rows in zip(micro_batch.counts_LE, rows_L, strict=True)] for micro_batch in passed]
    return list(parallel.summed_over_stage(torch.stack([torch.stack(layer).sum() for layer in zip(*dropped, strict=True)])))


def _counts(passed: list[_Passed], parallel: Parallel) -> list[Tensor]:
    """Tokens of each expert of each MoE layer of this stage, in all micro-batches of all ranks."""
    counts_LE = [torch.stack(counts).sum(0) for counts in zip(*(micro_batch.counts_LE for micro_batch in passed), strict=True)]
    if not counts_LE:
        return []
    return list(torch.split(parallel.summed_over_stage(torch.cat(counts_LE)), [len(counts_E) for counts_E in counts_LE]))
