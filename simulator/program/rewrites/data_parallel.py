"""Data parallelism: gradients are summed over the ranks that hold the same parameters, in buckets, beside the backward pass.

As in PyTorch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704, section 3.2), for several groups at once: a bucket begins with its first
gradient, gradients are views of it (no bytes of their own), and it leaves when the last micro-batch has filled it. A gradient as large as a bucket is one
itself, where it lies. Twin: ``trainer/parallel/data_parallel.py``.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulator.program.graph import Value
from simulator.program.parts import Pass, Program, Segment, Stretch
from simulator.program.rewrites.layout import Share, share_of, sharing_group
from simulator.program.sizes import ZERO
from simulator.specs import Plan


@dataclass
class Bucket:
    """Gradients that are summed together: bytes of all, how many have not come yet, and whether one has."""

    group: str
    bytes: float = 0.0
    missing: int = 0
    begun: bool = False


@dataclass(frozen=True, eq=False)
class Filling:
    """What the runs of one stretch do to the buckets, the first to run backward first.

    ``begun``: (run, arrival) bytes of the bucket that begins with this gradient, or is it. ``full``: buckets that have all their gradients after this run.
    """

    begun: NDArray[np.float64]
    full: list[list[Bucket]]


def fillings(program: Program, plan: Plan) -> list[Filling] | None:
    """How each stretch fills buckets in one backward pass, by stretch of the program; None where no other rank holds the same parameters."""
    groups = {share: sharing_group(plan, share) for share in Share}
    if plan.zero_stage or not any(groups.values()):
        return None
    members = _assigned(program, plan, groups)
    filled: list[Filling] = []
    for index in reversed(range(len(program.stretches))):
        stretch = program.stretches[index]
        arriving = [parameter for _, parameter in stretch.segment.arrivals]
        begun = np.zeros((stretch.count, len(arriving)))
        full: list[list[Bucket]] = []
        for run in range(stretch.count):
            done = []
            for place, parameter in enumerate(arriving):
                bucket = members[index, stretch.count - 1 - run, parameter]
                if not bucket.begun:
                    begun[run, place], bucket.begun = bucket.bytes, True
                bucket.missing -= 1
                if not bucket.missing:
                    done.append(bucket)
            full.append(done)
        filled.append(Filling(begun, full))
    return filled[::-1]


def without_copies_of_large(stretch: Stretch, plan: Plan) -> Stretch:
    """``stretch``, of which gradients as large as a bucket stay where they are: their arrival costs nothing, and the bucket begins where they end."""
    large = frozenset(parameter for _, parameter in stretch.segment.arrivals if _bytes(parameter, stretch) >= plan.gradient_bucket_bytes)
    return replace(stretch, segment=_without_copies(stretch.segment, large)) if large else stretch


@lru_cache(maxsize=256)
def _without_copies(segment: Segment, large: frozenset[Value]) -> Segment:
    places = {place for place, parameter in segment.arrivals if parameter in large}

    def spared(run: Pass) -> Pass:
        free = (replace(operation, launches=ZERO, traffic=()) if place in places else operation for place, operation in enumerate(run.backward))
        return run._replace(backward=tuple(free))

    passes = {turn: spared(run) if turn.first else run for turn, run in segment.passes.items()}
    return replace(segment, passes=passes, arrivals=tuple((place + (parameter in large), parameter) for place, parameter in segment.arrivals))


def _assigned(program: Program, plan: Plan, groups: dict[Share, str | None]) -> dict[tuple[int, int, Value], Bucket]:
    """The bucket of each parameter of each run of each stretch: filled from the last parameter of the model to the first."""
    filling: dict[str, Bucket] = {}
    members: dict[tuple[int, int, Value], Bucket] = {}
    for index, stretch in reversed(list(enumerate(program.stretches))):
        parameters = [(parameter, groups[share_of(parameter.component)], _bytes(parameter, stretch)) for parameter in stretch.segment.parameters]
        for run in reversed(range(stretch.count)):
            for parameter, group, size in reversed(parameters):
                if group is None:
                    continue
                bucket = filling.get(group)
                if bucket is None or bucket.bytes + size > plan.gradient_bucket_bytes:
                    bucket = filling[group] = Bucket(group)
                bucket.bytes += size
                bucket.missing += 1
                members[index, run, parameter] = bucket
    return members


def _bytes(parameter: Value, stretch: Stretch) -> float:
    return parameter.bytes.at(stretch.bindings)
