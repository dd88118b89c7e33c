"""Clipping and AdamW over a run of parameters; twins: ``trainer/optimizer.py`` and PyTorch's clipping."""

from collections.abc import Sequence

from simulator.components import Component, Kind, Phase, Role
from simulator.program.graph import ItemKind, Value
from simulator.program.operations import Operation
from simulator.program.sizes import ONE, A, Size
from simulator.program.tape import Tape


def clipping(limit: bool) -> list[Operation]:
    """Norm of every gradient, of them all, and with a ``limit`` the scaling; gradients themselves are charged by ``touching``."""
    tape = Tape(Phase.OPTIMIZER)
    tape.component = Component.GRADIENT_CLIPPING
    norms, stacked = (tape.new(name, (A,), ItemKind.FP32) for name in ("norms", "stacked"))
    total, shifted, inverse, coefficient, clamped = (tape.new(name, (ONE,), ItemKind.FP32) for name in ("total", "shifted", "inverse", "ratio", "clamped"))
    _emit(tape, "linalg_vector_norm", Kind.REDUCE, (), (norms,), launches=A)
    _emit(tape, "stack", Kind.POINTWISE, (norms,), (stacked,))
    _emit(tape, "linalg_vector_norm", Kind.REDUCE, (stacked,), (total,), frees=(norms, stacked))
    if limit:
        _emit(tape, "add", Kind.POINTWISE, (total,), (shifted,))
        _emit(tape, "reciprocal", Kind.POINTWISE, (shifted,), (inverse,), frees=(shifted,))
        _emit(tape, "mul", Kind.POINTWISE, (inverse,), (coefficient,), frees=(inverse,))
        _emit(tape, "clamp", Kind.POINTWISE, (coefficient,), (clamped,), frees=(coefficient,))
        _emit(tape, "mul_", Kind.POINTWISE, (clamped,), (), launches=A, frees=(clamped,))
    return tape.operations


def fused_adamw() -> list[Operation]:
    """One kernel over all parameters of a group, and one for the step counters: no temporaries."""
    tape = Tape(Phase.OPTIMIZER)
    tape.component = Component.OPTIMIZER
    for _ in ("matrices", "vectors"):
        _emit(tape, "_foreach_add_", Kind.POINTWISE, (), ())
        _emit(tape, "_fused_adamw_", Kind.OPTIMIZER, (), ())
    return tape.operations


def loop_adamw(parameters: Sequence[Value], previous: Value | None) -> list[Operation]:
    """AdamW parameter by parameter: the root of the second moment and its quotient are temporaries, and the quotient of one
    parameter lives on until that of the next takes its name; ``previous``: the parameter before these."""
    tape = Tape(Phase.OPTIMIZER)
    tape.component = Component.OPTIMIZER
    denominator = None if previous is None else Value("denominator", previous.shape, previous.item, Role.TEMPORARY, Component.OPTIMIZER)
    for parameter in parameters:
        root, quotient = (tape.new(name, parameter.shape, parameter.item) for name in ("root", "denominator"))
        tape.emit("add_", Kind.POINTWISE, (), ())
        tape.emit("mul_", Kind.POINTWISE, (parameter,), (parameter,))
        for name in ("lerp_", "mul_", "addcmul_"):
            tape.emit(name, Kind.POINTWISE, (parameter, parameter), (parameter,))
        _emit(tape, "sqrt", Kind.POINTWISE, (parameter,), (root,))
        _emit(tape, "div", Kind.POINTWISE, (root,), (quotient,), frees=(root,))
        tape.emit("add_", Kind.POINTWISE, (quotient,), (quotient,)).frees += [] if denominator is None else [denominator]
        tape.emit("addcdiv_", Kind.POINTWISE, (parameter, parameter, quotient), (parameter,))
        denominator = quotient
    return tape.operations


def _emit(tape: Tape, name: str, kind: Kind, reads: Sequence[Value], writes: Sequence[Value], *, launches: Size = ONE, frees: Sequence[Value] = ()) -> None:
    operation = tape.emit(name, kind, reads, writes, launches=launches)
    operation.allocates += list(writes)
    operation.frees += list(frees)
