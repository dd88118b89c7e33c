"""Time of a whole step: what every operation costs, and when host, device and network are done."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from simulator.components import Component, Kind, Phase
from simulator.program.build import Program, Stretch
from simulator.program.operations import Operation
from simulator.program.rewrites.data_parallel import Buckets
from simulator.program.sizes import Bindings
from simulator.records.step_report import CommunicationRow, ComponentTime
from simulator.specs import Plan
from simulator.specs.device import DeviceSpec
from simulator.time.clocks import Clocks, Piece, PieceBuilder
from simulator.time.communication import Network
from simulator.time.kernels import Cost, cost


@dataclass(frozen=True, eq=False)
class Priced:
    """A run of operations with its costs. ``pieces``: what it does to the clocks; ``pieces_alone``: the same on a network that costs nothing."""

    operations: tuple[Operation, ...]
    bindings: Bindings
    cost: Cost
    collective_s: list[float]
    pieces: tuple[Piece, ...]
    pieces_alone: tuple[Piece, ...]


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
    """Sums over the step."""

    seconds: dict[tuple[Component, Phase], list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0, 0.0, 0.0]))
    calls: dict[tuple[str, Component, str, float], int] = field(default_factory=lambda: defaultdict(int))
    memory_bound_s: float = 0.0

    def add(self, priced: Priced, count: int, network: Network, device: DeviceSpec) -> None:
        costs = priced.cost
        for position, operation in enumerate(priced.operations):
            if operation.kind is Kind.COLLECTIVE:
                assert operation.exchange is not None
                size = operation.exchange.bytes.at(priced.bindings)
                self.calls[operation.exchange.collective, operation.component, operation.exchange.group, size] += count
            row = self.seconds[operation.component, operation.phase]
            for index, number in enumerate((costs.seconds[position], costs.flops[position], costs.traffic_bytes[position], costs.launches[position])):
                row[index] += count * float(number)
        bandwidth = np.array([_bytes_per_s(device, operation.kind) for operation in priced.operations])
        moving = np.divide(costs.traffic_bytes, bandwidth, out=np.zeros_like(bandwidth), where=bandwidth > 0)
        self.memory_bound_s += count * float(np.where(moving > costs.seconds / 2, costs.seconds, 0.0).sum())


def step_time(program: Program, plan: Plan, device: DeviceSpec, network: Network) -> StepTime:
    """Price every distinct run once, then let the clocks go through the step, with the network and without."""
    prices: dict[int, Priced] = {}

    def priced(operations: tuple[Operation, ...], bindings: Bindings) -> Priced:
        key = id(operations)
        if key not in prices or prices[key].bindings is not bindings:
            prices[key] = _price(operations, bindings, device, network)
        return prices[key]

    tally = _Tally()
    sync_calls: dict[tuple[str, float], int] = defaultdict(int)
    clocks, alone = Clocks(), Clocks()

    def go(operations: tuple[Operation, ...], bindings: Bindings, count: int) -> None:
        run = priced(operations, bindings)
        tally.add(run, count, network, device)
        for _ in range(count):
            _pass(clocks, run.pieces)
            _pass(alone, run.pieces_alone)

    def synchronise(buckets: Buckets, stretch: Stretch | None) -> None:
        for group, size in buckets.ready(stretch) if stretch is not None else buckets.rest():
            sync_calls[group, size] += 1
            clocks.send(network.seconds("all-reduce", group, size), overlapped=plan.overlap_gradient_sync)

    for micro_batch in range(program.accumulation):
        for stretch in program.stretches:
            go(stretch.segment.forward, stretch.bindings, stretch.count)
        last = micro_batch == program.accumulation - 1
        buckets = Buckets(plan)
        for stretch in reversed(program.stretches):
            operations = stretch.segment.backward_again if micro_batch else stretch.segment.backward
            for _ in range(stretch.count):
                go(operations, stretch.bindings, 1)
                if last:
                    synchronise(buckets, stretch)
        if last:
            synchronise(buckets, None)
            clocks.join()
    for optimizer in program.optimizer:
        go(optimizer.operations, optimizer.bindings, optimizer.count)

    for (group, size), count in sync_calls.items():
        tally.calls["all-reduce", Component.GRADIENT_SYNC, group, size] += count
    rows = [
        ComponentTime(component=component, phase=phase, time_s=row[0], flops=row[1], traffic_bytes=row[2], operations=round(row[3]))
        for (component, phase), row in tally.seconds.items()
    ]
    busy = {phase: sum(row.time_s for row in rows if row.phase is phase) for phase in Phase}
    exposed = max(0.0, clocks.now_s - alone.now_s)
    communication = _communication(tally.calls, network, exposed)
    return StepTime(clocks.now_s, alone.now_s, busy, rows, communication, tally.memory_bound_s, sum(row.time_s for row in communication))


def _price(operations: tuple[Operation, ...], bindings: Bindings, device: DeviceSpec, network: Network) -> Priced:
    costs = cost(operations, bindings, device)
    real, alone = PieceBuilder(), PieceBuilder()
    collective_s = []
    for position, operation in enumerate(operations):
        host_s, device_s = float(costs.host_s[position]), float(costs.seconds[position])
        network_s = 0.0
        if operation.exchange is not None:
            network_s = network.seconds(operation.exchange.collective, operation.exchange.group, operation.exchange.bytes.at(bindings))
        collective_s.append(network_s)
        if operation.kind is Kind.HOST_SYNC:
            real.wait()
            alone.wait()
        else:
            real.add(host_s, device_s + network_s)
            alone.add(host_s, device_s)
    return Priced(operations, bindings, costs, collective_s, real.finish(), alone.finish())


def _pass(clocks: Clocks, pieces: tuple[Piece, ...]) -> None:
    for piece in pieces:
        clocks.run(piece)


def _communication(calls: dict[tuple[str, Component, str, float], int], network: Network, exposed_s: float) -> list[CommunicationRow]:
    """One row a collective, component and size. What is exposed is shared among synchronous collectives first: they hide behind nothing."""
    rows = []
    for (collective, component, group, size), count in calls.items():
        ranks = len(network.groups(group)[0])
        if ranks == 1:
            continue
        price = network.prices(collective, group).cost([size])
        seconds = count * float(price.time_s[0])
        rows.append((component, collective, group, ranks, count, size, seconds, count * float(price.latency_s[0]), price.bottleneck[0]))
    blocking = sum(row[6] for row in rows if row[0] is not Component.GRADIENT_SYNC)
    overlapped = sum(row[6] for row in rows if row[0] is Component.GRADIENT_SYNC)
    blocked = min(exposed_s, blocking)
    shares = {True: blocked / blocking if blocking else 0.0, False: (exposed_s - blocked) / overlapped if overlapped else 0.0}
    return [
        CommunicationRow(
            name=group, component=component, collective=collective, ranks=ranks, calls=count, bytes_per_call=size, time_s=seconds,
            exposed_s=seconds * shares[component is not Component.GRADIENT_SYNC], latency_s=latency, bottleneck=bottleneck,
        )
        for component, collective, group, ranks, count, size, seconds, latency, bottleneck in rows
    ]  # fmt: skip


def _bytes_per_s(device: DeviceSpec, kind: Kind) -> float:
    rate = device.kernels.get(kind)
    return 0.0 if rate is None else rate.bytes_per_s.value
