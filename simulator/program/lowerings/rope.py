"""Rotary positions; the trainer's twin is ``trainer/kernels/rope.py``."""

from collections.abc import Callable
from dataclasses import replace

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation, split
from simulator.program.sizes import ZERO
from simulator.program.tape import Backward, Forward, Gradients, Lowering, Tape

POINTWISE = Kind.POINTWISE


def lower_eager(tape: Forward, node: Node) -> None:
    """A rotation: keeps nothing but the tables."""
    (x, cosine, sine), (out,) = node.inputs, node.outputs
    _turn(tape, x, cosine, sine, out, lambda name, item: activation(tape, name, x.shape, item))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("x.grad", x.shape, x.item)
        _turn(back, gradients[0], cosine, sine, grad, lambda name, item: back.new(name, x.shape, item))
        return grad, None, None

    tape.record((x, cosine, sine), (out,), (cosine, sine), rule, custom=True)


def _turn(tape: Tape, x: Value, cosine: Value, sine: Value, out: Value, new: Callable[[str, ItemKind], Value]) -> None:
    turned, given = out, x
    if x.item != ItemKind.FP32:
        wide, turned = new("wide", ItemKind.FP32), new("turned", ItemKind.FP32)
        tape.emit("_to_copy", POINTWISE, (x,), (wide,))
        x = wide
    half = (*x.shape[:-1], cosine.shape[-1])
    tape.emit("empty_like", POINTWISE, (), (turned.viewed((ZERO,)),))
    for name, table in (("mul", cosine), ("addcmul_", sine), ("mul", cosine), ("addcmul_", sine)):
        tape.emit(name, POINTWISE, (x.viewed(half), table), (turned.viewed(half),))
    if turned is not out:
        # x and its wide copy have a name until the rotation returns.
        tape.emit("_to_copy", POINTWISE, (turned,), (out,)).holds += (x, given)


def lower_triton(tape: Forward, node: Node) -> None:
    """One pass each way over queries, keys and values side by side, or one of them, into storages of their own; keeps nothing but the tables."""
    x, cosine, sine = node.inputs
    tape.emit("rope_parts", POINTWISE, node.inputs, node.outputs, opaque=True)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("x.grad", x.shape, x.item)
        back.emit("rope_parts_backward", POINTWISE, (*gradients, cosine, sine), (grad,), opaque=True)
        return grad, None, None

    tape.record(node.inputs, node.outputs, (cosine, sine), rule, custom=True)


def of_parts(lowering: Lowering) -> Lowering:
    """The same of queries, keys and values side by side: split, and their gradients joined; values stay where they are."""

    def lower_packed(tape: Forward, node: Node) -> None:
        (x, *tables), (*turned, value) = node.inputs, node.outputs
        parts = [x.part(out.name, out.shape) for out in turned]
        split(tape, x, (*parts, value))
        for part, out in zip(parts, turned, strict=True):
            lowering(tape, replace(node, inputs=(part, *tables), outputs=(out,)))

    return lower_packed


ROPE_LOWERINGS = {"eager": lower_eager, "triton": lower_triton}
PACKED_ROPE_LOWERINGS = {"eager": of_parts(lower_eager), "triton": lower_triton}
