"""Time of a whole step: what every operation costs, and when host, device and network are done."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from simulator.components import Component, Kind, Phase
from simulator.program.operations import Operation, Stream
from simulator.program.parts import Program
from simulator.program.rewrites.data_parallel import Bucket, fillings
from simulator.program.sizes import Bindings
from simulator.records.step_report import CommunicationRow, ComponentTime
from simulator.specs import Plan
from simulator.specs.device import DeviceSpec
from simulator.time.clocks import Clocks, Item, Join, PieceBuilder, Send
from simulator.time.communication import Call, Network
from simulator.time.kernels import Cost, cost

BESIDE = (Component.GRADIENT_SYNC, Component.PARAMETER_GATHER)
"""What communicates beside the computation."""


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
    """Seconds of one step. ``busy_s`` by phase: the device at work on anything but the network. Times of collectives are totals."""

    step_s: float
    alone_s: float
    busy_s: dict[Phase, float]
    rows: list[ComponentTime]
    communication: list[CommunicationRow]
    memory_bound_s: float
    communication_s: float


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


def step_time(program: Program, plan: Plan, device: DeviceSpec, network: Network) -> StepTime:
    """Price every distinct run once, then let the clocks go through the step, with the network and without."""
    prices: dict[tuple[int, int], Priced] = {}

    def priced(operations: tuple[Operation, ...], bindings: Bindings) -> Priced:
        key = id(operations), id(bindings)
        if key not in prices:
            prices[key] = _price(operations, bindings, device, network)
        return prices[key]

    tally = _Tally(network)
    sync_calls: dict[tuple[str, float], int] = defaultdict(int)
    clocks, alone = Clocks(), Clocks()

    def go(operations: tuple[Operation, ...], bindings: Bindings, count: int) -> None:
        run = priced(operations, bindings)
        tally.add(run, count)
        for _ in range(count):
            _pass(clocks, run.pieces)
            _pass(alone, run.pieces_alone)

    def synchronise(buckets: list[Bucket]) -> None:
        for bucket in buckets:
            sync_calls[bucket.group, bucket.bytes] += 1
            clocks.send(Stream.REDUCE, network.seconds(Call("all-reduce", bucket.group), bucket.bytes))

    filling = fillings(program, plan)
    for turn in program.turns:
        for stretch in program.stretches:
            go(stretch.segment.passes[turn].forward, stretch.bindings, stretch.count)
        waiting: list[Bucket] = []
        for index, stretch in reversed(list(enumerate(program.stretches))):
            operations = stretch.segment.passes[turn].backward
            if filling is None or not turn.last:
                go(operations, stretch.bindings, stretch.count)
                continue
            for full in filling[index].full:
                go(operations, stretch.bindings, 1)
                if plan.overlap_gradient_sync:
                    synchronise(full)
                else:
                    waiting += full
        synchronise(waiting)
        if turn.last:
            clocks.join(Stream.REDUCE)
            alone.join(Stream.REDUCE)
    for optimizer in program.optimizer:
        go(optimizer.operations, optimizer.bindings, optimizer.count)

    rows = tally.rows()
    for (group, size), count in sync_calls.items():
        tally.calls[Component.GRADIENT_SYNC, Call("all-reduce", group), size] += count
    busy = {phase: sum(row.time_s for row in rows if row.phase is phase) for phase in Phase}
    exposed = max(0.0, clocks.now_s - alone.now_s)
    communication = _communication(tally.calls, network, exposed)
    return StepTime(clocks.now_s, alone.now_s, busy, rows, communication, tally.memory_bound_s(), sum(row.time_s for row in communication))


def _price(operations: tuple[Operation, ...], bindings: Bindings, device: DeviceSpec, network: Network) -> Priced:
    costs = cost(operations, bindings, device)
    real, alone = PieceBuilder(), PieceBuilder()
    for position, operation in enumerate(operations):
        host_s, device_s = float(costs.host_s[position]), float(costs.seconds[position])
        network_s = 0.0
        if operation.exchange is not None:
            network_s = network.seconds(network.call(operation.exchange, bindings), operation.exchange.bytes.at(bindings))
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
    blocking = sum(row[6] for row in rows if row[0] not in BESIDE)
    overlapped = sum(row[6] for row in rows if row[0] in BESIDE)
    blocked = min(exposed_s, blocking)
    shares = {True: blocked / blocking if blocking else 0.0, False: (exposed_s - blocked) / overlapped if overlapped else 0.0}
    return [
        CommunicationRow(
            name=group, component=component, collective=collective, ranks=ranks, calls=count, bytes_per_call=size, time_s=seconds,
            exposed_s=seconds * shares[component not in BESIDE], latency_s=latency, bottleneck=bottleneck,
        )
        for component, collective, group, ranks, count, size, seconds, latency, bottleneck in rows
    ]  # fmt: skip
