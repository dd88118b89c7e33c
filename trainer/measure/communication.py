"""The collectives of a step: calls, bytes and seconds of each by group of ranks, and how long it waits for the slowest rank.

Every collective of this project and of FSDP goes through the functions of ``torch.distributed``, which are replaced while steps are followed. On a CPU a
collective is over when its call, or the wait for it, returns (on CUDA see ``device_communication.py``). Exposed is the time in there, in steps that run as
always; total is the same in steps that wait for every collective at once, which then hides behind nothing.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from simulator.components import Component, Phase
from simulator.records.step_report import CommunicationRow
from trainer.measure.scope import tracking
from trainer.measure.subject import Subject
from trainer.parallel.together import gathered
from trainer.parallel.world import REPLICA, SHARD, TENSOR, Share, World

COLLECTIVES = {
    "all_reduce": "all-reduce",
    "all_gather_into_tensor": "all-gather",
    "all_gather_single": "all-gather",
    "reduce_scatter_tensor": "reduce-scatter",
    "reduce_scatter_single": "reduce-scatter",
    "all_to_all_single": "all-to-all",
    "broadcast": "broadcast",
}
"""Function of torch.distributed to the collective's name; two have new names since torch 2.13. Bytes are those of the larger side."""


@dataclass
class Call:
    """One collective as one rank sees it."""

    component: Component
    collective: str
    group: dist.ProcessGroup | None
    """As the call names it; None: all ranks."""
    ranks: tuple[int, ...]
    bytes: int
    waited_s: float = 0.0
    called_ns: int = 0
    """When, by ``time.time_ns``."""


@dataclass(frozen=True)
class Communication:
    """Means over the steps followed. ``exposed_s``: what a (phase, component) waits for collectives."""

    rows: list[CommunicationRow]
    exposed_s: dict[tuple[Phase, Component], float]


class _Waited:
    """Work in flight whose wait is timed."""

    def __init__(self, work: Any, call: Call, waited: Callable[[Call, float], None]) -> None:
        self.work, self.call, self.waited = work, call, waited

    def wait(self, *arguments: Any) -> Any:
        """Wait, as the work does."""
        began = time.perf_counter()
        result = self.work.wait(*arguments)
        self.waited(self.call, time.perf_counter() - began)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.work, name)


@dataclass
class Recorder:
    """The collectives of the steps that run while it records."""

    at_once: bool
    """Whether every collective is waited for where it is called."""
    calls: list[Call] = field(default_factory=list)
    exposed_s: dict[tuple[Phase, Component], float] = field(default_factory=lambda: defaultdict(float))
    """By where the waiting is done, which is not where a collective that runs beside computation was called."""
    phase: Phase = Phase.FORWARD
    component: Component = Component.INPUTS

    def observe(self, phase: Phase, component: Component) -> None:
        """Take the component that the following collectives belong to."""
        self.phase, self.component = phase, component

    def recorded(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """``original``, whose calls are noted."""

        def run(*arguments: Any, **named: Any) -> Any:
            given = [value for value in (*arguments, *named.values()) if isinstance(value, torch.Tensor)]
            largest = max(given, key=lambda tensor: tensor.nbytes)
            group = named.get("group")
            began = time.perf_counter()
            call = Call(self.component, COLLECTIVES[name], group, tuple(dist.get_process_group_ranks(group)), largest.nbytes, called_ns=time.time_ns())
            self.calls.append(call)
            work = original(*arguments, **named)
            if work is not None and self.at_once:
                work.wait()
            self.waited(call, time.perf_counter() - began)
            return work if work is None or self.at_once else _Waited(work, call, self.waited)

        return run

    def waited(self, call: Call, seconds: float) -> None:
        """Note time spent in a call or in the wait for it."""
        call.waited_s += seconds
        self.exposed_s[self.phase, self.component] += seconds


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Context: replace the collectives by such that tell ``recorder``."""
    with ExitStack() as stack:
        for name in (name for name in COLLECTIVES if hasattr(dist, name)):
            stack.enter_context(patch.object(dist, name, recorder.recorded(name, getattr(dist, name))))
        yield recorder


def measure_communication(subject: Subject, repeats: int) -> Communication:
    """Follow the collectives of ``repeats`` steps of each kind. A collective call itself: every rank does it."""
    world = subject.parallel.world
    beside = _followed(subject, repeats, at_once=False)
    found: dict[Key, Sums] = defaultdict(Sums)
    for call, wait_s in zip(beside.calls, waits(world, beside.calls, [call.waited_s for call in beside.calls]), strict=True):
        found[key_of(world, call)].add(call, exposed_s=call.waited_s, waiting_s=wait_s)
    for call in _followed(subject, repeats, at_once=True).calls:
        # A collective that is waited for elsewhere belongs to where it was called, in both kinds of steps.
        found[key_of(world, call)].total_s += call.waited_s
    return Communication(report_rows(found, repeats), {key: seconds / repeats for key, seconds in beside.exposed_s.items()})


Key = tuple[str, Component, str]


@dataclass
class Sums:
    """All calls of one row, over all steps followed."""

    ranks: int = 0
    calls: int = 0
    bytes: int = 0
    total_s: float = 0.0
    exposed_s: float = 0.0
    waiting_s: float = 0.0

    def add(self, call: Call, *, total_s: float = 0.0, exposed_s: float = 0.0, waiting_s: float = 0.0) -> None:
        """Take one more call in."""
        self.ranks, self.calls, self.bytes = len(call.ranks), self.calls + 1, self.bytes + call.bytes
        self.total_s, self.exposed_s, self.waiting_s = self.total_s + total_s, self.exposed_s + exposed_s, self.waiting_s + waiting_s


def key_of(world: World, call: Call) -> Key:
    """The row that a call belongs to."""
    return group_name(world, call), call.component, call.collective


def report_rows(found: dict[Key, Sums], steps: int) -> list[CommunicationRow]:
    """Rows of the report, a step each."""
    return [_row(key, sums, steps) for key, sums in found.items()]


def _followed(subject: Subject, repeats: int, *, at_once: bool) -> Recorder:
    with recording(Recorder(at_once)) as recorder:
        for _ in range(repeats):
            with tracking(recorder.observe):
                subject.step()
    return recorder


def _row(key: Key, sums: Sums, repeats: int) -> CommunicationRow:
    group, component, collective = key
    return CommunicationRow(
        name=f"{group} {collective}",
        component=component,
        collective=collective,
        ranks=sums.ranks,
        calls=round(sums.calls / repeats),
        bytes_per_call=sums.bytes / sums.calls,
        time_s=sums.total_s / repeats,
        exposed_s=sums.exposed_s / repeats,
        waiting_s=sums.waiting_s / repeats,
        latency_s=0.0,
        bottleneck="",
    )


def waits(world: World, calls: list[Call], seconds: list[float]) -> list[float]:
    """Of each of this rank's calls the time beyond that of the rank that took least: the last to come. Clocks need not agree. A collective call."""
    return _waits([call.ranks for call in calls], seconds, gathered(world, [(call.ranks, taken) for call, taken in zip(calls, seconds, strict=True)]))


def _waits(mine: list[tuple[int, ...]], seconds: list[float], everybody: list[list[tuple[tuple[int, ...], float]]]) -> list[float]:
    shortest: dict[tuple[tuple[int, ...], int], float] = {}
    for calls in everybody:
        counts: dict[tuple[int, ...], int] = defaultdict(int)
        for ranks, taken_s in calls:
            key = (ranks, counts[ranks])
            counts[ranks] += 1
            shortest[key] = min(taken_s, shortest.get(key, taken_s))
    counts = defaultdict(int)
    found = []
    for ranks, taken_s in zip(mine, seconds, strict=True):
        found.append(taken_s - shortest[ranks, counts[ranks]])
        counts[ranks] += 1
    return found


def group_name(world: World, call: Call) -> str:
    """The name that the prediction has for the ranks of a call; ``all`` for a call that names no group.

    Cuts of the same ranks may be one group. Then it is the one that the component is known to talk in: tensor ranks where activations travel, else those
    that share parameters. What sharded parameters do within the layers of a single data-parallel rank cannot be told from the former.
    """
    if call.group is None:
        return "all"
    sharing = {
        f"{name}{kind}": world.group(share, dimension)
        for kind, dimension in (("data", SHARD), ("replica", REPLICA))
        for name, share in (("", Share.WHOLE), ("slice_", Share.SLICED), ("expert_", Share.EXPERT))
    }
    tensor = {"tensor": world.group(Share.SLICED, TENSOR)}
    by_component = {
        Component.DISPATCH: {"expert": world.expert_group},
        Component.COMBINE: {"expert": world.expert_group},
        Component.AUXILIARY_LOSSES: {"stage": world.stage_group} if world.plan.auxiliary_loss_scope == "global" else tensor,
        Component.GRADIENT_SYNC: sharing,
        Component.INPUTS: sharing,
    }
    groups = by_component.get(call.component, tensor) | sharing | tensor
    return next((name for name, group in groups.items() if group is call.group), "all")
