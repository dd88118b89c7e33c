"""Memory of a whole step: every stretch of the program in order, the peak, what holds it, and the bytes of each component."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from simulator.components import Component, Phase, Role
from simulator.memory.in_flight import Schedule, held, in_flight, standing
from simulator.memory.profile import Run, run
from simulator.program.graph import ITEM_BYTES, ItemKind, Value
from simulator.program.operations import Operation
from simulator.program.parts import Program, Stretch
from simulator.program.rewrites.data_parallel import Filling, fillings
from simulator.program.sizes import Bindings
from simulator.program.tape import Turn
from simulator.records.step_report import ComponentBytes, Memory, PeakPoint, TimelinePoint
from simulator.specs import Plan

_ROLES = tuple(Role)
STATES_PER_PARAMETER = 2
"""AdamW keeps the first and second moment of every parameter, in its own type, and one fp32 step counter a tensor."""
SPLIT_STATE_BYTES = 10
"""Of a parameter in bf16-split: both moments in fp32 and the lower half of the weight. Not counted on CUDA: 76 bytes a tensor, its addresses."""
STEP_COUNTER_BYTES = 4
ROWS = "x"
"""Name of what every stretch hands on to the next: the rows of the residual stream."""


def step_memory(program: Program, plan: Plan) -> Memory:
    """Fill the memory part of a StepReport."""
    components = _components(program, _by_component(program), plan.precision)
    owned = {name: sum(getattr(row, name) for row in components) for name in ("parameters_bytes", "gradients_bytes", "optimizer_bytes")}
    base = np.zeros(len(_ROLES))
    base[_ROLES.index(Role.PARAMETER)] = owned["parameters_bytes"]
    base[_ROLES.index(Role.OPTIMIZER_STATE)] = owned["optimizer_bytes"]
    base[_ROLES.index(Role.BUFFER)] = ITEM_BYTES[ItemKind.FP32] * program.buffer_elements
    walk = _Walk(base)
    for role, size in standing(program, plan):
        walk.change(role, size)
    _walk(program, walk, fillings(program, plan))
    return Memory(
        parameters_bytes=owned["parameters_bytes"],
        buffers_bytes=int(base[_ROLES.index(Role.BUFFER)]),
        gradients_bytes=owned["gradients_bytes"],
        optimizer_bytes=owned["optimizer_bytes"],
        inputs_bytes=2 * 8 * plan.tokens_per_micro_batch * (plan.accumulation if plan.pp > 1 else 1),
        activations_bytes=sum(row.activations_bytes for row in components),
        peak_allocated_bytes=int(walk.peak),
        peak_at=walk.peak_at,
        at_peak={role: int(value) for role, value in zip(_ROLES, walk.at_peak, strict=True)},
        components=components,
        timeline=walk.timeline,
    )


def state_bytes(item_bytes: int, precision: str) -> int:
    """Optimizer states of one element of a parameter whose elements take ``item_bytes``."""
    return SPLIT_STATE_BYTES if precision == "bf16-split" else STATES_PER_PARAMETER * item_bytes


class _Walk:
    """Bytes alive by role as the step goes on, and the highest point so far."""

    def __init__(self, base: np.ndarray) -> None:
        self.alive = base.copy()
        self.peak = 0.0
        self.at_peak = base.copy()
        self.peak_at = PeakPoint(phase=Phase.FORWARD, component=Component.INPUTS, operation="")
        self.timeline: list[TimelinePoint] = []

    def change(self, role: Role, size_bytes: float) -> None:
        """Something begins, or ends with a negative size."""
        self.alive[_ROLES.index(role)] += size_bytes

    def go(self, piece: Run, count: int) -> None:
        """Run ``piece`` ``count`` times."""
        if not piece.operations or not count:
            return
        height, in_last = piece.repeated(count)
        begin = self.alive + (piece.net_by_role * (count - 1) if in_last else 0)
        if self.alive.sum() + height > self.peak:
            operation = piece.operations[piece.peak_index]
            self.peak = self.alive.sum() + height
            self.at_peak = begin + piece.at_peak_by_role
            self.peak_at = PeakPoint(phase=operation.phase, component=operation.component, operation=operation.name)
        for repetition in range(count):
            self._draw(piece, float(self.alive.sum()) + repetition * piece.net)
        self.alive = self.alive + piece.net_by_role * count

    def take(self, size_bytes: float) -> None:
        """Count activations of ``size_bytes`` as gradients from now on."""
        self.alive[_ROLES.index(Role.ACTIVATION)] -= size_bytes
        self.alive[_ROLES.index(Role.GRADIENT)] += size_bytes

    def fill(self, piece: Run, arrivals: list[int], begun: np.ndarray) -> None:
        """Run ``piece`` as often as ``begun`` has rows: in each, buckets of so many bytes begin with its ``arrivals`` and stay."""
        gradient = _ROLES.index(Role.GRADIENT)
        for row in begun:
            if not row.any():
                self.go(piece, 1)
                continue
            # One more: a bucket may begin after the last operation.
            held = np.cumsum(np.bincount(arrivals, row, minlength=len(piece.live) + 1))
            live = piece.live + held[:-1]
            at = int(live.argmax())
            roles = piece.roles(at)
            roles[gradient] += held[at]
            net = piece.net_by_role.copy()
            net[gradient] += held[-1]
            self.go(replace(piece, live=live, net=float(net.sum()), net_by_role=net, at_peak_by_role=roles, peak=float(live[at]), peak_index=at), 1)

    def _draw(self, piece: Run, begin: float) -> None:
        """One point for each stretch of operations of one component: its highest."""
        starts = _component_starts(piece.operations)
        for start, highest in zip(starts, np.maximum.reduceat(piece.live, starts), strict=True):
            here = piece.operations[start]
            size = int(max(begin + highest, 0))
            last = self.timeline[-1] if self.timeline else None
            if last is not None and (last.phase, last.component) == (here.phase, here.component):
                self.timeline.pop()
                size = max(size, last.bytes)
            self.timeline.append(TimelinePoint(phase=here.phase, component=here.component, bytes=size))


@lru_cache(maxsize=2048)
def _component_starts(operations: tuple[Operation, ...]) -> tuple[int, ...]:
    """Where the component changes, the beginning included."""
    return tuple(at for at, operation in enumerate(operations) if at == 0 or operations[at - 1].component is not operation.component)


def _walk(program: Program, walk: _Walk, filling: list[Filling] | None) -> None:
    begun: set[int] = set()
    schedule = Schedule(program)
    for action in program.actions:
        turn = program.turns[action.micro_batch]
        stretches = list(enumerate(program.stretches))[slice(program.pieces[action.piece].start, program.pieces[action.piece].stop)]
        end = stretches[-1][0]
        if action.phase == "forward":
            for index, stretch in stretches:
                if index == end:
                    walk.change(Role.ACTIVATION, -schedule.before_loss(action))
                walk.go(run(stretch.segment.passes[turn].forward, stretch.bindings), stretch.count)
            walk.change(Role.ACTIVATION, schedule.after_loss(action, "forward"))
            continue
        for index, stretch in reversed(stretches):
            backward = run(stretch.segment.passes[turn].backward, stretch.bindings)
            if filling is None or action.piece in begun:
                walk.go(backward, stretch.count)
            else:
                walk.fill(backward, [operation for operation, _ in stretch.segment.arrivals], filling[index].begun)
            if index == end:
                walk.change(Role.ACTIVATION, schedule.after_loss(action, "backward"))
        if action.piece not in begun:
            walk.take(sum(value.bytes.at(stretch.bindings) for _, stretch in stretches for value in stretch.segment.early_gradients))
        begun.add(action.piece)
        for role, size in schedule.let_go(action):
            walk.change(role, -size)
    for role, size in schedule.let_go(None):
        walk.change(role, -size)
    for optimizer in program.optimizer:
        walk.go(run(optimizer.operations, optimizer.bindings), optimizer.count)


def _by_component(program: Program) -> dict[Component, list[tuple[Value, int, Bindings]]]:
    found: dict[Component, list[tuple[Value, int, Bindings]]] = defaultdict(list)
    for stretch in program.stretches:
        for value in stretch.segment.parameters:
            found[value.component].append((value, stretch.count, stretch.bindings))
    return found


def _components(program: Program, parameters: dict[Component, list[tuple[Value, int, Bindings]]], precision: str) -> list[ComponentBytes]:
    activations = _activations(program)
    rows = []
    for component in Component:
        values = parameters.get(component, [])
        elements = sum(value.elements.at(bindings) * count for value, count, bindings in values)
        tensors = sum(count for _, count, _ in values)
        item = ITEM_BYTES[values[0][0].item] if values else 0
        if not values and not activations.get(component):
            continue
        rows.append(
            ComponentBytes(
                component=component,
                parameters_bytes=int(elements * item),
                gradients_bytes=int(elements * item),
                optimizer_bytes=int(elements * state_bytes(item, precision)) + STEP_COUNTER_BYTES * tensors,
                activations_bytes=int(activations.get(component, 0)),
            )
        )
    return rows


def _activations(program: Program) -> dict[Component, float]:
    """Bytes that the forward pass leaves alive, by the component that made them; logged values of earlier micro-batches with them.

    In a pipeline those of all micro-batches that are in flight when the first goes backward.
    """
    bytes_of: dict[Component, float] = defaultdict(float)
    for stretch, value, count in kept_activations(program):
        bytes_of[value.component] += count * value.bytes.at(stretch.bindings)
    return bytes_of


def kept_activations(program: Program) -> Iterator[tuple[Stretch, Value, int]]:
    """Storages of the stretches that the forward pass leaves alive, and how many of each, over all micro-batches that are there at once."""
    left = [list(_left_by_forward(program.stretches[piece.start : piece.stop], program.turns[0])) for piece in program.pieces]
    for micro_batches, piece in zip(in_flight(program) if program.wire is not None else [1], left, strict=True):
        yield from ((stretch, value, micro_batches * count) for stretch, value, count in piece)
    yield from held(program)
    earlier = len(program.turns) - 1
    if program.wire is None and earlier:
        yield from ((stretch, value, earlier * stretch.count) for stretch in program.stretches for value in stretch.segment.kept)


def _left_by_forward(stretches: tuple[Stretch, ...], turn: Turn) -> Iterator[tuple[Stretch, Value, int]]:
    """Of one micro-batch. What a stretch ends without having begun is what stretches before it handed on."""
    counts: list[Counter[Value]] = [Counter() for _ in stretches]
    for place, stretch in enumerate(stretches):
        for operation in stretch.segment.passes[turn].forward:
            for value in operation.allocates:
                counts[place][value] += stretch.count
            for value in operation.frees:
                if value in counts[place]:
                    counts[place][value] -= stretch.count
                elif value.name == ROWS and place:
                    counts[place - 1][stretches[place - 1].segment.outputs[0]] -= 1
                    counts[place][stretch.segment.outputs[0]] -= stretch.count - 1
                else:
                    for before, earlier in zip(counts, stretches[:place], strict=False):
                        before.subtract({output: earlier.count for output in earlier.segment.outputs if output.name == value.name})
    for stretch, count in zip(stretches, counts, strict=True):
        yield from ((stretch, value, times) for value, times in count.items() if times and value.role is Role.ACTIVATION)
