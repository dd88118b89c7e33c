"""What runs after the last backward pass: clipping, AdamW and selection biases over the stretches of a model."""

from functools import lru_cache

from simulator.program.graph import Value
from simulator.program.operations import Operation
from simulator.program.optimizer import (
    bias_update,
    end_of_loop,
    fused_adamw,
    fused_launches,
    gradient_norms,
    gradient_scaling,
    gradients_let_go,
    loop_adamw,
    split_adamw,
    split_counters,
    split_launches,
    total_norm,
)
from simulator.program.parts import OptimizerStretch, Segment, Stretch
from simulator.program.rewrites.all_ranks import sums_of_all_ranks
from simulator.program.sizes import SYMBOLS, Size
from simulator.specs import Plan


def optimizer_phase(
    stretches: tuple[Stretch, ...], plan: Plan, auxiliary_losses: int, counts: tuple[OptimizerStretch, ...], *, on_cpu: bool
) -> tuple[OptimizerStretch, ...]:
    """Norm and scaling of the gradients of ``stretches``, AdamW, and what moves selection biases, before which ranks sum their ``counts``."""
    biased = [OptimizerStretch(_bias_updates(stretch.segment), stretch.count, stretch.bindings) for stretch in stretches if stretch.segment.biases]
    freed = [OptimizerStretch(_gradients_let_go(stretch.segment), stretch.count, stretch.bindings) for stretch in stretches] if biased else []
    return (*_parameter_updates(stretches, plan, auxiliary_losses, on_cpu=on_cpu), *freed, *counts, *biased)


@lru_cache(maxsize=256)
def _gradients_let_go(segment: Segment) -> tuple[Operation, ...]:
    return tuple(gradients_let_go(segment.parameters))


@lru_cache(maxsize=256)
def _bias_updates(segment: Segment) -> tuple[Operation, ...]:
    return tuple(operation for bias in segment.biases for operation in bias_update(bias))


def _parameter_updates(stretches: tuple[Stretch, ...], plan: Plan, auxiliary_losses: int, *, on_cpu: bool) -> tuple[OptimizerStretch, ...]:
    common = dict.fromkeys(SYMBOLS, 1.0) | {"A": float(sum(stretch.count * len(stretch.segment.parameters) for stretch in stretches))}
    made: list[OptimizerStretch] = []
    if not _norm_comes_with_update(plan, on_cpu=on_cpu):
        made += [OptimizerStretch(_updates(stretch.segment)[0], stretch.count, stretch.bindings) for stretch in stretches]
        made.append(OptimizerStretch(_total_norm(plan.gradient_clipping is not None), 1, common))
    made += sums_of_all_ranks(auxiliary_losses, plan)
    if plan.precision == "bf16-split":
        made.append(OptimizerStretch(_split_counters(on_cpu, plan.implementation.launch == "graph"), 1, common))
        made += [OptimizerStretch(_split_updates(stretch.segment, on_cpu), stretch.count, stretch.bindings) for stretch in stretches]
        return tuple(made) if on_cpu else (*made, OptimizerStretch(_split_launches(), 1, common))
    if plan.gradient_clipping is not None:
        made += [OptimizerStretch(_updates(stretch.segment)[1], stretch.count, stretch.bindings) for stretch in stretches]
    if plan.implementation.optimizer == "fused":
        made += [OptimizerStretch(_updates(stretch.segment)[2], stretch.count, stretch.bindings) for stretch in stretches]
        return (*made, OptimizerStretch(_fused_launches(), 1, common))
    for matrices in (True, False):
        previous: Value | None = None
        for stretch in stretches:
            run = [parameter for parameter in stretch.segment.parameters if (len(parameter.shape) > 1) == matrices]
            if not run:
                continue
            made.append(OptimizerStretch(tuple(loop_adamw(run, previous)), 1, stretch.bindings))
            if stretch.count > 1:
                made.append(OptimizerStretch(tuple(loop_adamw(run, run[-1])), stretch.count - 1, stretch.bindings))
            last = run[-1]
            previous = Value(last.name, (Size(int(last.elements.at(stretch.bindings))),), last.item)
        if previous is not None:
            made.append(OptimizerStretch((end_of_loop(previous),), 1, common))
    return tuple(made)


@lru_cache(maxsize=256)
def _updates(segment: Segment) -> tuple[tuple[Operation, ...], tuple[Operation, ...], tuple[Operation, ...]]:
    """Norms of the gradients, their scaling, and fused AdamW, over the parameters of a segment."""
    return tuple(gradient_norms(segment.parameters)), tuple(gradient_scaling(segment.parameters)), tuple(fused_adamw(segment.parameters))


def _norm_comes_with_update(plan: Plan, *, on_cpu: bool) -> bool:
    """Whether split AdamW takes the norm on the way: no limit waits for it, and every gradient is whole on every rank."""
    whole = plan.tp * plan.pp * plan.ep * plan.etp == 1 and not plan.zero_stage
    return plan.precision == "bf16-split" and plan.gradient_clipping is None and whole and not on_cpu


@lru_cache(maxsize=256)
def _split_updates(segment: Segment, on_cpu: bool) -> tuple[Operation, ...]:
    return tuple(split_adamw(segment.parameters, on_cpu=on_cpu))


@lru_cache(maxsize=4)
def _split_counters(on_cpu: bool, replayed: bool) -> tuple[Operation, ...]:
    return tuple(split_counters(on_cpu=on_cpu, replayed=replayed))


@lru_cache(maxsize=1)
def _split_launches() -> tuple[Operation, ...]:
    return tuple(split_launches())


@lru_cache(maxsize=2)
def _total_norm(limit: bool) -> tuple[Operation, ...]:
    return tuple(total_norm(limit))


@lru_cache(maxsize=1)
def _fused_launches() -> tuple[Operation, ...]:
    return tuple(fused_launches())
