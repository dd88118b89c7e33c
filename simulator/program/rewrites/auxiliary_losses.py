"""Auxiliary losses in a pipeline: a stage weighs those of its own layers, and attaches their gradient to the rows that it hands on.

Twin: ``trainer/parallel/pipeline.py``.
"""

from simulator.components import Component, Kind
from simulator.program.tape import Tape


def weigh(tape: Tape, losses: int, *, sums: bool) -> None:
    """Forward: each of a layer's ``losses`` times its coefficient; after the last layer of a piece (``sums``) their sum times the micro-batch's weight."""
    with tape.within(Component.TOTAL_LOSS):
        for name in ("mul",) * losses + ("stack", "sum", "mul") * sums:
            tape.emit(name, Kind.POINTWISE, (), ())


def attach(tape: Tape, losses: int, *, sums: bool) -> None:
    """Backward, in reverse: the gradient one where the rows' gradient comes by."""
    with tape.within(Component.TOTAL_LOSS):
        for name in ("ones", "mul") * sums + ("mul",) * losses:
            tape.emit(name, Kind.POINTWISE, (), ())
