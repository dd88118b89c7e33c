"""The collectives of a step: calls, bytes and seconds of each by group of ranks, and how long it waits for the slowest rank.

Every collective of this project and of FSDP goes through the functions of ``torch.distributed``, which are replaced while steps are followed. On a CPU a
collective is over when its call, or the wait for it, returns (on CUDA see ``device_communication.py``). Exposed is the time in there, in steps that run as
always; total is the time in there in steps that wait for every collective at once, which then hides behind nothing, without the wait for the slowest rank.

What stages of a pipeline pass on, they wait for in the schedule, and the wait has two parts: as long as the transfer takes when nobody waits, which is
measured by itself, it is exposed communication; beyond that it is the bubble, as is every wait until a neighbour takes what is sent, and the wait for the
slowest in collectives over several stages.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.pipelining import schedules

from simulator.components import Component, Phase
from simulator.records.step_report import CommunicationRow
from trainer.measure.scope import tracking
from trainer.measure.subject import Subject
from trainer.parallel.parallelize import Parallel
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


Waits = dict[tuple[Phase, Component], float]
BETWEEN_PASSES = (Phase.FORWARD, Component.PIPELINE)
ACROSS_STAGES = ("all", "ends")
"""Groups whose ranks belong to several stages of a pipeline."""


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


@dataclass
class Transfer:
    """Rows, or their gradient, that a stage of a pipeline gets from ``peer`` (``received``) or gives to it."""

    received: bool
    peer: int
    bytes: int
    waited_s: float = 0.0


@dataclass(frozen=True)
class Communication:
    """Of one of the steps followed. ``exposed_s``: what a (phase, component) waits for collectives and transfers; ``bubble_s``: for other stages."""

    rows: list[CommunicationRow]
    exposed_s: Waits
    bubble_s: Waits


class _Waited:
    """Work in flight whose wait is timed."""

    def __init__(self, work: Any, call: "Call | Transfer", waited: "Callable[[Any, float], None]") -> None:
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
    transfers: list[Transfer] = field(default_factory=list)
    exposed_s: Waits = field(default_factory=lambda: defaultdict(float))
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

    def passed_on(self, original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        """``original`` of the pipeline's schedules, which begins sends and receives."""

        def run(operations: list[dist.P2POp], *arguments: Any, **named: Any) -> list[Any]:
            transfers = [Transfer(operation.op is dist.irecv, operation.peer, operation.tensor.nbytes) for operation in operations]
            self.transfers += transfers
            works = original(operations, *arguments, **named)
            return [_Waited(work, transfer, _note_wait) for work, transfer in zip(works, transfers, strict=True)]

        return run

    def waited(self, call: Call, seconds: float) -> None:
        """Note time spent in a call or in the wait for it."""
        call.waited_s += seconds
        self.exposed_s[self.phase, self.component] += seconds


def _note_wait(transfer: Transfer, seconds: float) -> None:
    transfer.waited_s += seconds


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Context: replace the collectives by such that tell ``recorder``."""
    with ExitStack() as stack:
        for name in (name for name in COLLECTIVES if hasattr(dist, name)):
            stack.enter_context(patch.object(dist, name, recorder.recorded(name, getattr(dist, name))))
        yield recorder


def measure_communication(subject: Subject, repeats: int) -> Communication:
    """Follow the collectives of ``repeats`` steps of each kind. A collective call itself: every rank does it."""
    parallel = subject.parallel
    alone_s = {} if parallel.pipeline is None else parallel.pipeline.transfer_seconds()
    beside, at_once = (_followed(subject, repeats, at_once=at_once) for at_once in (False, True))
    steps = [_Step.of(parallel, recorder, waits_s, alone_s) for recorder, waits_s in zip(beside, _waits_of(parallel.world, beside), strict=True)]
    totals_s = [_totals(parallel, recorder, waits_s) for recorder, waits_s in zip(at_once, _waits_of(parallel.world, at_once), strict=True)]
    rows = [_median_row(key, [step.sums[key] for step in steps], [total_s.get(key, 0.0) for total_s in totals_s]) for key in steps[0].sums]
    return Communication(rows, *(_medians(of_steps) for of_steps in ([step.exposed_s for step in steps], [step.bubble_s for step in steps])))


Key = tuple[str, Component, str]


@dataclass
class Sums:
    """All calls of one row, over a step or over several."""

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


def key_of(parallel: Parallel, call: Call) -> Key:
    """The row that a call belongs to."""
    return group_name(parallel, call), call.component, call.collective


def report_rows(found: dict[Key, Sums], steps: int) -> list[CommunicationRow]:
    """Rows of the report, means over ``steps``."""
    return [
        _row(key, sums, round(sums.calls / steps), *(seconds / steps for seconds in (sums.total_s, sums.exposed_s, sums.waiting_s)))
        for key, sums in found.items()
    ]


@dataclass
class _Step:
    """What one step that ran as always says."""

    sums: dict[Key, Sums]
    exposed_s: Waits
    bubble_s: Waits

    @classmethod
    def of(cls, parallel: Parallel, recorder: Recorder, waits_s: list[float], alone_s: dict[int, float]) -> "_Step":
        """``waits_s``: of each call for the slowest; ``alone_s``: of a transfer from each neighbour."""
        step = cls({}, recorder.exposed_s, defaultdict(float))
        for call, wait_s in zip(recorder.calls, waits_s, strict=True):
            key = key_of(parallel, call)
            sums = step.sums.setdefault(key, Sums())
            if parallel.pipeline is not None and key[0] in ACROSS_STAGES:
                sums.add(call, exposed_s=call.waited_s - wait_s)
                step.exposed_s[Phase.OPTIMIZER, call.component] -= wait_s
                step.bubble_s[Phase.OPTIMIZER, call.component] += wait_s
            else:
                sums.add(call, exposed_s=call.waited_s, waiting_s=wait_s)
        if parallel.pipeline is not None:
            step.pass_on(recorder.transfers, alone_s)
        return step

    def pass_on(self, transfers: list[Transfer], alone_s: dict[int, float]) -> None:
        """Count what was received, as long as it takes when nobody waits; all other waits of the schedule are the bubble."""
        sums = self.sums["neighbours", Component.PIPELINE, "point-to-point"] = Sums(2)
        for transfer in transfers:
            if transfer.received:
                needed_s = alone_s[transfer.peer]
                sums.calls, sums.bytes, sums.total_s = sums.calls + 1, sums.bytes + transfer.bytes, sums.total_s + needed_s
                sums.exposed_s += min(transfer.waited_s, needed_s)
        self.exposed_s[BETWEEN_PASSES] += sums.exposed_s
        self.bubble_s[BETWEEN_PASSES] += sum(transfer.waited_s for transfer in transfers) - sums.exposed_s


def _totals(parallel: Parallel, recorder: Recorder, waits_s: list[float]) -> dict[Key, float]:
    """Seconds of the collectives of a step that waits for each at once. One that runs beside computation belongs to where it was called, in both kinds."""
    found: dict[Key, float] = defaultdict(float)
    for call, wait_s in zip(recorder.calls, waits_s, strict=True):
        found[key_of(parallel, call)] += call.waited_s - wait_s
    return found


def _medians(steps: list[Waits]) -> Waits:
    return {key: median(step.get(key, 0.0) for step in steps) for key in dict.fromkeys(key for step in steps for key in step)}


def _followed(subject: Subject, repeats: int, *, at_once: bool) -> list[Recorder]:
    found = []
    for _ in range(repeats):
        recorder = Recorder(at_once)
        passed_on = patch.object(schedules, "_batch_p2p", recorder.passed_on(schedules._batch_p2p))
        with recording(recorder), passed_on, tracking(recorder.observe):
            subject.step()
        found.append(recorder)
    return found


def _median_row(key: Key, steps: list[Sums], totals_s: list[float]) -> CommunicationRow:
    seconds = (median(totals_s) or steps[0].total_s, median(step.exposed_s for step in steps), median(step.waiting_s for step in steps))
    return _row(key, steps[0], steps[0].calls, *seconds)


def _row(key: Key, sums: Sums, calls: int, total_s: float, exposed_s: float, waiting_s: float) -> CommunicationRow:
    group, component, collective = key
    return CommunicationRow(
        name=group,
        component=component,
        collective=collective,
        ranks=sums.ranks,
        calls=calls,
        bytes_per_call=sums.bytes / sums.calls,
        time_s=total_s,
        exposed_s=exposed_s,
        waiting_s=waiting_s,
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


def _waits_of(world: World, steps: list[Recorder]) -> list[list[float]]:
    """The same for the calls of several steps, step by step."""
    calls = [call for recorder in steps for call in recorder.calls]
    found = iter(waits(world, calls, [call.waited_s for call in calls]))
    return [list(islice(found, len(recorder.calls))) for recorder in steps]


def group_name(parallel: Parallel, call: Call) -> str:
    """The name that the prediction has for the ranks of a call; ``all`` for a call that names no group.

    Cuts of the same ranks may be one group. Then it is the one that the component is known to talk in: tensor ranks where activations travel, else those
    that share parameters. Raises LookupError for a group that the plan does not cut.
    """
    world = parallel.world
    if call.group is None:
        return "all"
    if parallel.pipeline is not None and call.group is parallel.pipeline.ends:
        return "ends"
    sharing = {
        f"{name}{kind}": world.group(share, dimension)
        for kind, dimension in (("data", SHARD), ("replica", REPLICA))
        for name, share in (("", Share.WHOLE), ("slice_", Share.SLICED), ("expert_", Share.EXPERT))
    }
    tensor = {"tensor": world.group(Share.SLICED, TENSOR)}
    stage = {"stage": world.stage_group}
    by_component = {
        Component.DISPATCH: {"expert": world.expert_group},
        Component.COMBINE: {"expert": world.expert_group},
        Component.AUXILIARY_LOSSES: stage if world.plan.auxiliary_loss_scope == "global" else tensor,
        Component.ROUTER: stage,
        Component.GRADIENT_SYNC: sharing,
        Component.PARAMETER_GATHER: sharing,
    }
    groups = by_component.get(call.component, tensor) | sharing | tensor | {"all": dist.group.WORLD}
    name = next((name for name, group in groups.items() if group is call.group), None)
    if name is None:
        raise LookupError(f"{call.collective} of {call.component} over ranks {call.ranks}: the plan cuts no such group")
    return name
