"""Time of a whole step: what every operation costs, and when host, device and network are done."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from simulator.components import Component, Kind, Phase
from simulator.program.operations import Operation, Stream
from simulator.program.parts import Program
from simulator.program.rewrites.data_parallel import Bucket, fillings
from simulator.program.rewrites.pipeline import Action, in_order, needed
from simulator.program.sizes import Bindings
from simulator.records.step_report import CommunicationRow, ComponentTime
from simulator.specs import Plan
from simulator.specs.device import DeviceSpec
from simulator.time.clocks import Clocks, Item, Join, PieceBuilder, Send
from simulator.time.communication import Call, Network
from simulator.time.kernels import Cost, cost
from simulator.time.launch import first_issue_s, launched

BESIDE = (Component.GRADIENT_SYNC, Component.PARAMETER_GATHER)
"""What communicates beside the computation, but for sums over stages, which come when all passes are done."""
ACROSS_STAGES = ("all", "ends")


@dataclass(frozen=True, eq=False, repr=False)
class Priced:
    """A run of operations with its costs. ``pieces``: what it does to the clocks; ``pieces_alone``: the same on a network that costs nothing."""

    operations: tuple[Operation, ...]
    bindings: Bindings
    cost: Cost
    pieces: tuple[Item, ...]
    pieces_alone: tuple[Item, ...]


@dataclass
class StepTime:
    """Seconds of one step; ``alone_s``: the same on a network that costs nothing, but for the ``bubble_s`` in which it waits for other stages.

    ``busy_s`` by phase: the device at work on anything but the network. Times of collectives are totals.
    """

    step_s: float
    alone_s: float
    busy_s: dict[Phase, float]
    bubble_s: float
    rows: list[ComponentTime]
    communication: list[CommunicationRow]
    memory_bound_s: float
    communication_s: float

    def padded(self, seconds: float) -> "StepTime":
        """The same with a wait for the stage that ends last."""
        return replace(self, step_s=self.step_s + seconds, alone_s=self.alone_s + seconds, bubble_s=self.bubble_s + seconds)


@dataclass
class _Tally:
    """How often each priced run went by, and the sums that follow."""

    network: Network
    runs: dict[int, tuple[Priced, int]] = field(default_factory=dict)
    calls: dict[tuple[Component, Call, float], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, run: Priced, count: int) -> None:
        self.runs[id(run)] = (run, count + (self.runs[id(run)][1] if id(run) in self.runs else 0))

    def rows(self) -> list[ComponentTime]:
        """Sums by component and phase; counts the collectives on the way."""
        sums: dict[tuple[Component, Phase], np.ndarray] = {}
        for run, count in self.runs.values():
            numbers = count * np.stack([run.cost.seconds, run.cost.flops, run.cost.traffic_bytes, run.cost.launches], axis=1)
            for operation, row in zip(run.operations, numbers, strict=True):
                key = (operation.component, operation.phase)
                sums[key] = sums[key] + row if key in sums else row
                if operation.exchange is not None:
                    size = operation.exchange.bytes.at(run.bindings)
                    self.calls[operation.component, self.network.call(operation.exchange, run.bindings), size] += count
        return [
            ComponentTime(component=component, phase=phase, time_s=row[0], flops=row[1], traffic_bytes=row[2], operations=round(row[3]))
            for (component, phase), row in sums.items()
        ]

    def memory_bound_s(self) -> float:
        """Seconds of operations that spend more than half of their time on traffic."""
        return float(sum(count * run.cost.seconds[run.cost.moving_s > run.cost.seconds / 2].sum() for run, count in self.runs.values()))


def step_time(programs: Sequence[Program], plan: Plan, device: DeviceSpec, network: Network) -> list[StepTime]:
    """Price every distinct run once, then let the clocks of every stage go through the step, with the network and without.

    ``programs``: of each stage; without a pipeline one.
    """
    prices: dict[tuple[int, int], Priced] = {}
    kernels_on, issued_s = launched(device, plan.implementation), first_issue_s(device, plan.implementation)

    def priced(operations: tuple[Operation, ...], bindings: Bindings) -> Priced:
        key = id(operations), id(bindings)
        if key not in prices:
            prices[key] = _price(operations, bindings, kernels_on, network)
        return prices[key]

    stages = [_Stage(program, plan, network, priced, issued_s) for program in programs]
    ends: dict[tuple[str, int, int], tuple[float, float]] = {}
    for number, action in in_order(plan):
        stage, waits_for = stages[number], needed(plan, number, action)
        if waits_for is not None:
            stage.receive(*ends[waits_for])
        stage.run(action)
        ends[action.phase, action.piece * plan.pp + number, action.micro_batch] = stage.clocks.device_s, stage.alone.device_s
    for stage in stages:
        stage.synchronise()
    # The norm of all gradients is that of all stages: none goes on before the last.
    together = max(stage.clocks.now_s for stage in stages), max(stage.alone.now_s for stage in stages)
    times = [stage.finish(*together) for stage in stages]
    longest_s = max(time.step_s for time in times)
    return [time.padded(longest_s - time.step_s) for time in times]


class _Stage:
    """One stage as it goes through the step: its clocks, on the network and on one that costs nothing."""

    def __init__(self, program: Program, plan: Plan, network: Network, priced: Callable[[tuple[Operation, ...], Bindings], Priced], issued_s: float) -> None:
        """``issued_s``: when the host begins to issue kernels."""
        self.program, self.plan, self.network, self.priced = program, plan, network, priced
        self.tally = _Tally(network)
        self.clocks, self.alone = Clocks(host_s=issued_s), Clocks(host_s=issued_s)
        self.filling = fillings(program, plan)
        self.waiting: list[Bucket] = []
        self.bubble_s = self.bubble_alone_s = 0.0

    def receive(self, sent_s: float, sent_alone_s: float) -> None:
        """Wait for rows, or their gradient, of a neighbour that was done at these times."""
        assert self.program.wire is not None
        call = Call("point-to-point", "neighbours")
        self.tally.calls[Component.PIPELINE, call, self.program.wire.bytes] += 1
        transfer_s = self.network.seconds(call, self.program.wire.bytes)
        self.bubble_s += max(0.0, self.clocks.wait_until(sent_s + transfer_s) - transfer_s)
        self.bubble_alone_s += self.alone.wait_until(sent_alone_s)

    def run(self, action: Action) -> None:
        """One pass of a micro-batch."""
        turn = self.program.turns[action.micro_batch]
        piece = self.program.pieces[action.piece]
        if action.phase == "forward":
            for index in piece:
                stretch = self.program.stretches[index]
                self._go(stretch.segment.passes[turn].forward, stretch.bindings, stretch.count)
            return
        for index in reversed(piece):
            stretch = self.program.stretches[index]
            operations = stretch.segment.passes[turn].backward
            if self.filling is None or not turn.last:
                self._go(operations, stretch.bindings, stretch.count)
                continue
            for full in self.filling[index].full:
                self._go(operations, stretch.bindings, 1)
                if self.plan.overlap_gradient_sync:
                    self._sum(full)
                else:
                    self.waiting += full
        if turn.last:
            self.clocks.join(Stream.REDUCE)
            self.alone.join(Stream.REDUCE)

    def synchronise(self) -> None:
        """Sum what has not been summed during the passes."""
        self._sum(self.waiting)
        if self.program.wire is not None and self.program.wire.tied_bytes:
            self._reduce("ends", self.program.wire.tied_bytes)
        self.clocks.join(Stream.REDUCE)

    def finish(self, together_s: float, together_alone_s: float) -> StepTime:
        """The optimizer, once all stages are there; then the sums."""
        self.bubble_s += self.clocks.wait_until(together_s)
        self.bubble_alone_s += self.alone.wait_until(together_alone_s)
        for optimizer in self.program.optimizer:
            self._go(optimizer.operations, optimizer.bindings, optimizer.count)
        rows = self.tally.rows()
        busy = {phase: sum(row.time_s for row in rows if row.phase is phase) for phase in Phase}
        step_s, alone_s = self.clocks.now_s, self.alone.now_s - self.bubble_alone_s + self.bubble_s
        communication = _communication(self.tally.calls, self.network, max(0.0, step_s - alone_s))
        total = sum(row.time_s for row in communication)
        return StepTime(step_s, alone_s, busy, self.bubble_s, rows, communication, self.tally.memory_bound_s(), total)

    def _go(self, operations: tuple[Operation, ...], bindings: Bindings, count: int) -> None:
        run = self.priced(operations, bindings)
        self.tally.add(run, count)
        for _ in range(count):
            _pass(self.clocks, run.pieces)
            _pass(self.alone, run.pieces_alone)

    def _sum(self, buckets: list[Bucket]) -> None:
        for bucket in buckets:
            self._reduce(bucket.group, bucket.bytes)

    def _reduce(self, group: str, size_bytes: float) -> None:
        call = Call("all-reduce", group)
        self.tally.calls[Component.GRADIENT_SYNC, call, size_bytes] += 1
        self.clocks.send(Stream.REDUCE, self.network.seconds(call, size_bytes))


def _price(operations: tuple[Operation, ...], bindings: Bindings, device: DeviceSpec, network: Network) -> Priced:
    costs = cost(operations, bindings, device)
    real, alone = PieceBuilder(), PieceBuilder()
    for position, operation in enumerate(operations):
        host_s, device_s = float(costs.host_s[position]), float(costs.seconds[position])
        network_s = 0.0
        if operation.exchange is not None:
            size_bytes = operation.exchange.bytes.at(bindings)
            network_s = network.seconds(network.call(operation.exchange, bindings), size_bytes)
            if operation.stream is Stream.GATHER and not size_bytes:
                # Below the first block there is nothing to gather ahead.
                host_s = 0.0
        if operation.after is not None and not device.host_and_device_are_one:
            real.append(Join(operation.after))
            alone.append(Join(operation.after))
        if operation.stream is not Stream.COMPUTE and not device.host_and_device_are_one:
            real.append(Send(operation.stream, host_s, network_s))
            alone.append(Send(operation.stream, host_s, 0.0))
        elif operation.kind is Kind.HOST_SYNC:
            real.wait()
            alone.wait()
        else:
            real.add(host_s, device_s + network_s)
            alone.add(host_s, device_s)
    return Priced(operations, bindings, costs, real.finish(), alone.finish())


def _pass(clocks: Clocks, pieces: tuple[Item, ...]) -> None:
    for piece in pieces:
        clocks.run(piece)


def _communication(calls: dict[tuple[Component, Call, float], int], network: Network, exposed_s: float) -> list[CommunicationRow]:
    """One row a collective, component and size. What is exposed is shared among synchronous collectives first: they hide behind nothing."""
    rows = []
    for (component, call, size), count in calls.items():
        ranks = len(network.groups(call.group)[0])
        if ranks == 1 or not size:
            continue
        price = network.prices(call).cost([size])
        seconds = count * float(price.time_s[0])
        rows.append((component, call.collective, call.group, ranks, count, size, seconds, count * float(price.latency_s[0]), price.bottleneck[0]))
    beside = [row[0] in BESIDE and row[2] not in ACROSS_STAGES for row in rows]
    blocking = sum(row[6] for row, hidden in zip(rows, beside, strict=True) if not hidden)
    overlapped = sum(row[6] for row, hidden in zip(rows, beside, strict=True) if hidden)
    blocked = min(exposed_s, blocking)
    shares = {True: blocked / blocking if blocking else 0.0, False: (exposed_s - blocked) / overlapped if overlapped else 0.0}
    return [
        CommunicationRow(
            name=group, component=component, collective=collective, ranks=ranks, calls=count, bytes_per_call=size, time_s=seconds,
            exposed_s=seconds * shares[not hidden], latency_s=latency, bottleneck=bottleneck,
        )
        for (component, collective, group, ranks, count, size, seconds, latency, bottleneck), hidden in zip(rows, beside, strict=True)
    ]  # fmt: skip
