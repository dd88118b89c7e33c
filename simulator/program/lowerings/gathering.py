"""Permutation that gathers in both directions; the trainer's twin is ``trainer/kernels/permutation.py`` (``gather``)."""

from functools import partial

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation
from simulator.program.tape import Backward, Forward, Gradients, Lowering, Tape

POINTWISE, REDUCE, GATHER = Kind.POINTWISE, Kind.REDUCE, Kind.GATHER
INT32, INT64 = ItemKind.INT32, ItemKind.INT64


def lower_order(on_cpu: bool, tape: Forward, node: Node) -> None:
    """Sort the choices by expert and say where each of them went; nothing here has a gradient. On CUDA a counting sort of two passes."""
    (experts, counts), (slot, token, ends, row) = node.inputs, node.outputs
    if on_cpu:
        place, wide, numbers = (activation(tape, name, slot.shape, item) for name, item in (("place", INT64), ("wide", INT64), ("numbers", INT32)))
        tape.emit("sort", Kind.SORT, (experts,), (activation(tape, "sorted", slot.shape, INT64), place))
        tape.emit("_to_copy", POINTWISE, (place,), (slot,))
        tape.emit("empty_like", POINTWISE, (), (row,), traffic=())
        tape.emit("_to_copy", POINTWISE, (slot,), (wide,))
        tape.emit("arange", POINTWISE, (), (numbers,))
        tape.emit("scatter_", Kind.SCATTER, (wide, numbers), (row,))
    else:
        begins = activation(tape, "begins", counts.shape, INT32)
        tape.emit("count", POINTWISE, (experts,), (begins,), opaque=True)
        tape.emit("cumsum", POINTWISE, (begins,), (begins,), opaque=True)
        tape.emit("sub_", POINTWISE, (begins,), (begins,), opaque=True)
        tape.emit("place", POINTWISE, (experts, begins), (slot, row), opaque=True)
    tape.emit("floor_divide", POINTWISE, (slot,), (token,))
    tape.emit("cumsum", POINTWISE, (counts,), (ends,), opaque=True)


def lower_permute(tape: Forward, node: Node) -> None:
    """Rows of tokens; the gradient looks up the rows of each token and sums them. Keeps where they are."""
    (x, token, row), (out,) = node.inputs, node.outputs
    tape.emit("index_select", GATHER, (x, token), (out,), traffic=(out, out, token))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("x.grad", x.shape, x.item)
        _gathered_sum(back, gradients[0], row, grad, back.new("by_token", out.shape, out.item))
        return grad, None, None

    tape.record((x, token, row), (out,), (row,), rule, custom=True)


def lower_reorder(tape: Forward, node: Node) -> None:
    """A permutation of the choices' weights, and back. Keeps where they went."""
    (x, slot, row), (out,) = node.inputs, node.outputs
    tape.emit("index_select", GATHER, (x, slot), (out,), traffic=(out, out, slot))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("x.grad", x.shape, x.item)
        back.emit("index_select", GATHER, (*gradients, row), (grad,), traffic=(grad, grad, row))
        return grad, None, None

    tape.record((x, slot, row), (out,), (row,), rule, custom=True)


def lower_combine(tape: Forward, node: Node) -> None:
    """Look up the rows of each token and sum them; keeps the tokens and no row."""
    (rows, token, row), (out,) = node.inputs, node.outputs
    _gathered_sum(tape, rows, row, out, activation(tape, "by_token", rows.shape, rows.item))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("rows.grad", rows.shape, rows.item)
        back.emit("index_select", GATHER, (*gradients, token), (grad,), traffic=(grad, grad, token))
        return grad, None, None

    tape.record((rows, token, row), (out,), (token,), rule, custom=True)


def _gathered_sum(tape: Tape, rows: Value, row: Value, out: Value, looked_up: Value) -> None:
    tape.emit("index_select", GATHER, (rows, row), (looked_up,), traffic=(rows, looked_up, row))
    tape.emit("sum", REDUCE, (looked_up,), (out,))


def gather_lowerings(*, on_cpu: bool) -> dict[str, Lowering]:
    """Of the steps that the rewrite of the same name puts in."""
    return {
        "gather_order": partial(lower_order, on_cpu), "gather_permute": lower_permute, "gather_reorder": lower_reorder, "gather_combine": lower_combine,
    }  # fmt: skip
