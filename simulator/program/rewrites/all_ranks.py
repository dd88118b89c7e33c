"""What ranks settle once a step beside their gradients: losses, tokens and the norm of all ranks in one sum, and the experts' tokens in another.

Twins: ``trainer/step.py``, ``trainer/parallel/parallelize.py``.
"""

from collections.abc import Iterator
from functools import lru_cache

from simulator.components import Component, Kind, Phase
from simulator.program.operations import Exchange, Operation
from simulator.program.parts import OptimizerStretch
from simulator.program.sizes import SYMBOLS, Size
from simulator.program.tape import Tape
from simulator.specs import ModelSpec, MoeFeedForward, Plan

ITEM_BYTES = 8
"""Sums are in fp64, counts in int64."""
LOSSES = 3
"""Labelled tokens, the language-model loss and the square of the norm; auxiliary losses come on top."""


def sums_of_all_ranks(auxiliary_losses: int, plan: Plan) -> Iterator[OptimizerStretch]:
    """The sums that clipping and the log need, over all ranks."""
    if plan.ranks > 1:
        yield _once(_summed(Component.GRADIENT_SYNC, "all", LOSSES + auxiliary_losses))


def counts_of_a_stage(model: ModelSpec, layers: list[int], plan: Plan) -> Iterator[OptimizerStretch]:
    """Tokens of each expert of the stage's ``layers``, and where some have a capacity the choices that they dropped, over the ranks of the stage."""
    groups = [group.feed_forward for group in model.blocks for _ in range(group.count)]
    mixtures = [group for layer in layers if isinstance(group := groups[layer], MoeFeedForward)]
    if plan.stage_ranks == 1 or not mixtures:
        return
    yield _once(_summed(Component.ROUTER, "stage", sum(mixture.experts for mixture in mixtures)))
    if any(mixture.capacity_factor is not None for mixture in mixtures):
        yield _once(_summed(Component.ROUTER, "stage", len(mixtures)))


@lru_cache(maxsize=64)
def _summed(component: Component, group: str, numbers: int) -> tuple[Operation, ...]:
    tape = Tape(Phase.OPTIMIZER)
    tape.component = component
    if component is Component.GRADIENT_SYNC:
        tape.emit("stack", Kind.POINTWISE, (), ())
    tape.emit("allreduce_", Kind.COLLECTIVE, (), (), exchange=Exchange("all-reduce", group, Size(ITEM_BYTES * numbers)))
    return tuple(tape.operations)


def _once(operations: tuple[Operation, ...]) -> OptimizerStretch:
    return OptimizerStretch(operations, 1, _NUMBERS)


_NUMBERS = dict.fromkeys(SYMBOLS, 1.0)
