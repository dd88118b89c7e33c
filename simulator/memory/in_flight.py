"""What a pipeline holds beside its passes: buffers that wait for neighbours, inputs of all micro-batches, and rows on their way.

As torch.distributed.pipelining does it: every micro-batch has its own receive buffers, which stay from step to step; what is sent is held until the next
send of its kind (1F1B), or until all sends are waited for at the end of the step (GPipe, interleaved).
"""

from collections.abc import Iterator
from typing import NamedTuple

from simulator.components import Component, Role
from simulator.program.graph import ItemKind, Value
from simulator.program.parts import Program, Stretch
from simulator.program.rewrites.pipeline import Action
from simulator.program.sizes import B, S
from simulator.specs import Plan

FINISHED = "normalised"
"""Name of what the final norm makes, after others of that name on the way."""


def standing(program: Program, plan: Plan) -> Iterator[tuple[Role, float]]:
    """What is there before the first pass and stays: receive buffers of rows and of gradients; ids and labels, as they came and joined."""
    if program.wire is not None:
        buffers = sum(program.wire.received) + sum(program.wire.sent)
        yield Role.COMMUNICATION, float(buffers * plan.accumulation * program.wire.bytes)
        ids = 2 * len(program.turns) * joined().bytes.at(program.stretches[0].bindings)
        yield from ((Role.INPUT, ids), (Role.ACTIVATION, ids))


def held(program: Program) -> Iterator[tuple[Stretch, Value, int]]:
    """Activations of a pipeline that backward does not need: ids and labels of all micro-batches once more, joined for the schedule, and finished rows."""
    if program.wire is None:
        return
    yield program.stretches[0], joined(), 2 * len(program.turns)
    for piece, count in enumerate(in_flight(program)):
        last = finished(program, piece)
        if last is not None and not last.kept:
            yield last.stretch, last.rows, count


def joined() -> Value:
    """The ids of one micro-batch."""
    return Value("joined", (B * S,), ItemKind.INT64, Role.ACTIVATION, Component.INPUTS)


def in_flight(program: Program) -> list[int]:
    """Micro-batches of each piece that have gone forward when the first pass goes backward."""
    found = [0] * len(program.pieces)
    for action in program.actions:
        if action.phase == "backward":
            return found
        found[action.piece] += 1
    return found


class Finished(NamedTuple):
    """Rows that the last piece of the model gives to the head, which the schedule holds longer than the head does."""

    stretch: Stretch
    rows: Value
    kept: bool
    """Whether backward needs them anyhow, up to its end in the head."""
    bytes: float
    """Of one micro-batch."""


def finished(program: Program, piece: int) -> Finished | None:
    """None where another piece follows."""
    if program.wire is None or program.wire.sent[piece]:
        return None
    stretch = program.stretches[program.pieces[piece].stop - 1]
    forward = stretch.segment.passes[program.turns[0]].forward
    rows = [value for operation in forward for value in operation.allocates if value.name == FINISHED][-1]
    return Finished(stretch, rows, not any(rows in operation.frees for operation in forward), rows.bytes.at(stretch.bindings))


class Schedule:
    """What the schedule of a stage holds as it goes from pass to pass."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.finished = [finished(program, piece) for piece in range(len(program.pieces))]
        self.ahead, self.last = in_flight(program)[0], len(program.turns) - 1
        self.soon = program.wire is not None and not program.wire.held
        """1F1B, which waits for what it sent before it sends more."""

    def before_loss(self, action: Action) -> float:
        """Finished rows of the micro-batch before, which 1F1B holds until a pass forward has made others."""
        rows = self.finished[action.piece]
        return rows.bytes if rows is not None and self.soon and action.micro_batch > 0 else 0.0

    def after_loss(self, action: Action, phase: str) -> float:
        """Finished rows that are held although the head, going forward or backward, has let go of them."""
        rows = self.finished[action.piece]
        return rows.bytes if rows is not None and rows.kept == (phase == "backward") else 0.0

    def let_go(self, action: Action | None) -> Iterator[tuple[Role, float]]:
        """What is no longer held after a pass backward; None: after all of them."""
        wire, last = self.program.wire, self.last
        if wire is None:
            return
        size = float(wire.bytes)
        for sent, received in zip(wire.sent, wire.received, strict=True):
            if action is None:
                yield Role.ACTIVATION, sent * size * (1 if self.soon else last + 1)
                yield Role.TEMPORARY, received * size * (1 if self.soon else last + 1)
            elif self.soon:
                # The rows sent last are held to the end, those whose send was waited for last in the warm-up until the schedule is through with forwards.
                waited = self.ahead - 2
                outputs = (action.micro_batch not in (last, waited)) + (waited >= 0 and action.micro_batch == max(last + 1 - self.ahead, waited))
                yield Role.ACTIVATION, sent * size * outputs
                # A gradient until the next one is there.
                yield Role.TEMPORARY, received * size * (action.micro_batch > 0)
        yield Role.ACTIVATION, self._finished_let_go(action)

    def _finished_let_go(self, action: Action | None) -> float:
        """Finished rows that end with a pass backward, or (GPipe, 1F1B: those made last) with all passes."""
        alone = len(self.finished) == 1
        rows = self.finished[0 if action is None else action.piece]
        if rows is None:
            return 0.0
        if action is None:
            return alone * rows.bytes
        return (not (alone and (self.soon or action.micro_batch == self.last))) * rows.bytes
