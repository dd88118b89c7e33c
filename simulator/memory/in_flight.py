"""What a pipeline holds beside its passes: buffers that wait for neighbours, inputs of all micro-batches, and rows on their way.

As torch.distributed.pipelining does it: every micro-batch has its own receive buffers, which stay from step to step; what is sent is held until the next
send of its kind (1F1B), or until all sends are waited for at the end of the step (GPipe, interleaved).
"""

from collections.abc import Iterator, Sequence

from simulator.components import Role
from simulator.program.parts import Program
from simulator.program.rewrites.pipeline import Action
from simulator.specs import Plan


def standing(program: Program, plan: Plan) -> Iterator[tuple[Role, float]]:
    """What is there before the first pass and stays: receive buffers of rows and of gradients; ids and labels, as they came and joined."""
    if program.wire is not None:
        buffers = sum(program.wire.received) + sum(program.wire.sent)
        yield Role.COMMUNICATION, float(buffers * plan.accumulation * program.wire.bytes)
        ids = 2.0 * 8 * plan.tokens_per_micro_batch * plan.accumulation
        yield from ((Role.INPUT, ids), (Role.ACTIVATION, ids))


def let_go(program: Program, action: Action | None) -> Iterator[tuple[Role, float]]:
    """What is no longer held after ``action``; None: after all of them."""
    if program.wire is None:
        return
    size, last = float(program.wire.bytes), len(program.turns) - 1
    ahead = next(index for index, done in enumerate(program.actions) if done.phase == "backward")
    soon = not program.wire.held
    for piece in range(len(program.pieces)):
        sent, received = program.wire.sent[piece], program.wire.received[piece]
        if action is None:
            yield Role.ACTIVATION, sent * size * (1 if soon else last + 1)
            yield Role.TEMPORARY, received * size * (1 if soon else last + 1)
        elif soon:
            # The rows sent last are held to the end, those whose send was waited for last in the warm-up until the schedule is through with forwards.
            waited = ahead - 2
            outputs = (action.micro_batch not in (last, waited)) + (waited >= 0 and action.micro_batch == max(last + 1 - ahead, waited))
            yield Role.ACTIVATION, sent * size * outputs
            # A gradient until the next one is there.
            yield Role.TEMPORARY, received * size * (action.micro_batch > 0)


def in_flight(program: Program, sizes: Sequence[float]) -> list[int]:
    """Micro-batches of each piece that have gone forward and not yet backward, when they hold most. ``sizes``: what one of them holds."""
    now, most, found = [0] * len(sizes), -1.0, [0] * len(sizes)
    for action in program.actions:
        now[action.piece] += 1 if action.phase == "forward" else -1
        if (held := sum(count * size for count, size in zip(now, sizes, strict=True))) > most:
            most, found = held, now.copy()
    return found
