"""Pipeline parallelism: stages hold runs of layers and pass micro-batches on by a schedule.

GPipe (Huang et al. 2019, arXiv 1811.06965), 1F1B (Narayanan et al. 2019, SOSP) and its interleaved form (Narayanan et al. 2021, arXiv 2104.04473, section 2.2),
in the order in which torch.distributed.pipelining runs them. Twin: ``trainer/parallel/pipeline.py``.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from simulator.specs import Plan


class Action(NamedTuple):
    """One pass of a micro-batch through a piece, which is counted among the stage's own."""

    phase: Literal["forward", "backward"]
    piece: int
    micro_batch: int


class Place(NamedTuple):
    """Where a block lies in a pipeline: whether rows come from another stage, or go there (then they, or their gradient, lie in a buffer of the pipeline),
    and whether it is the last of its piece."""

    received: bool
    sent: bool
    last: bool


ALONE = Place(received=False, sent=False, last=False)


def layers_of(piece: int, pieces: int, layers: int) -> range:
    """The run of layers of one piece; the first pieces take what is left over."""
    whole, rest = divmod(layers, pieces)
    start = piece * whole + min(piece, rest)
    return range(start, start + whole + (piece < rest))


def layers_on(plan: Plan, stage: int, layers: int) -> list[int]:
    """All layers of a stage, by piece."""
    pieces = plan.pp * plan.virtual_stages
    return [layer for number in range(stage, pieces, plan.pp) for layer in layers_of(number, pieces, layers)]


def actions(plan: Plan, stage: int) -> list[Action]:
    """What a stage does, in order. Without a pipeline micro-batches go through one after another."""
    count, own = plan.accumulation, plan.virtual_stages
    passes = own * count
    if plan.pp == 1:
        return [Action(phase, 0, micro_batch) for micro_batch in range(count) for phase in ("forward", "backward")]
    if plan.schedule == "gpipe":
        ahead = passes
    elif plan.schedule == "1f1b":
        ahead = min(count, plan.pp - stage)
    else:
        ahead = min(passes, (own - 1) * plan.pp + 2 * (plan.pp - 1 - stage))
    forward, backward = _forwards(plan), _backwards(plan)
    made = [next(forward) for _ in range(ahead)]
    # 1F1B goes backward first once it is full; the interleaved form goes forward first.
    for _ in range(passes - ahead):
        pair = [next(forward), next(backward)]
        made += pair if plan.schedule == "interleaved" else pair[::-1]
    return [*made, *backward]


def _forwards(plan: Plan) -> Iterator[Action]:
    """A round of micro-batches through the first piece, then through the next."""
    done: Counter[int] = Counter()
    for step in range(plan.virtual_stages * plan.accumulation):
        piece = step // min(plan.pp, plan.accumulation) % plan.virtual_stages
        yield Action("forward", piece, done[piece])
        done[piece] += 1


def _backwards(plan: Plan) -> Iterator[Action]:
    for action in _forwards(plan):
        yield Action("backward", plan.virtual_stages - 1 - action.piece, action.micro_batch)


def in_order(plan: Plan) -> Iterator[tuple[int, Action]]:
    """The actions of all stages, each after those that it waits for."""
    waiting = [actions(plan, stage)[::-1] for stage in range(plan.pp)]
    done: set[tuple[str, int, int]] = set()
    while any(waiting):
        before = len(done)
        for stage, todo in enumerate(waiting):
            while todo and (needed(plan, stage, todo[-1]) or _NOTHING) in done | {_NOTHING}:
                action = todo.pop()
                done.add((action.phase, action.piece * plan.pp + stage, action.micro_batch))
                yield stage, action
        if len(done) == before:
            raise AssertionError("the schedule waits for itself")


_NOTHING = ("", 0, 0)


def needed(plan: Plan, stage: int, action: Action) -> tuple[str, int, int] | None:
    """What an action waits for of another stage: phase, number of the piece in the model, micro-batch. None at the ends of the model."""
    number = action.piece * plan.pp + stage + (-1 if action.phase == "forward" else 1)
    return (action.phase, number, action.micro_batch) if 0 <= number < plan.pp * plan.virtual_stages else None


def makespan_s(plan: Plan, forward_s: float, backward_s: float, transfer_s: float) -> float:
    """Seconds from the first pass to the end of the last where all pieces take the same time: the schedule, event by event."""
    ends: dict[tuple[str, int, int], float] = {}
    free = [0.0] * plan.pp
    for stage, action in in_order(plan):
        waits_for = needed(plan, stage, action)
        start = max(free[stage], ends[waits_for] + transfer_s if waits_for else 0.0)
        free[stage] = start + (forward_s if action.phase == "forward" else backward_s)
        ends[action.phase, action.piece * plan.pp + stage, action.micro_batch] = free[stage]
    return max(free)


def uniform_makespan_s(plan: Plan, forward_s: float, backward_s: float) -> float:
    """The same in closed form on a network that costs nothing: every stage runs all its passes and idles for those of one micro-batch through the others."""
    return (plan.accumulation * plan.virtual_stages + plan.pp - 1) * (forward_s + backward_s)


def bubble_share(plan: Plan) -> float:
    """Share of the passes' time that a stage idles where all pieces take the same time (arXiv 2104.04473, section 2.2)."""
    return (plan.pp - 1) / (plan.accumulation * plan.virtual_stages + plan.pp - 1)
