"""Expert-tensor parallelism: several ranks hold a slice of each expert; each of them gets its rows, and what they return is summed at home.

Twin: ``trainer/parallel/expert.py``.
"""

from simulator.components import Component, Kind
from simulator.program.graph import Node, Value
from simulator.program.lowerings.basic import activation
from simulator.program.sizes import part, symbol
from simulator.program.tape import Backward, Forward, Gradients, Lowering

SLICES = symbol("z")
PARTS = "p"
"""Ranks that hold different experts: rows travel in as many parts."""


def copied(nodes: list[Node], rows: Value) -> Value:
    """Append what copies each rank's rows once for every slice; return the copies."""
    out = Value(f"copied_{rows.name}", (rows.shape[0] * SLICES, *rows.shape[1:]), rows.item, component=Component.DISPATCH)
    nodes.append(Node("copy_rows", Component.DISPATCH, (rows,), (out,), (rows,)))
    return out


def summed(nodes: list[Node], home: Value, rows: Value, held: tuple[Value, ...]) -> None:
    """Append what sums the rows that came ``home`` from the slices to the shape of ``rows``."""
    out = Value("summed", rows.shape, home.item, component=Component.COMBINE)
    nodes.append(Node("sum_slices", Component.COMBINE, (home,), (out,), (home, *held)))


def lower_copy_rows(tape: Forward, node: Node) -> None:
    """Rows side by side, once a slice; the gradients of the copies are added, then put side by side."""
    (rows,), (out,) = node.inputs, node.outputs
    tape.emit("cat", Kind.POINTWISE, (rows,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        added = back.new("added", rows.shape, rows.item)
        back.emit("add", Kind.POINTWISE, gradients, (added,))
        grad = back.new("rows.grad", rows.shape, rows.item)
        for gradient in gradients:
            back.drop(gradient)
        back.emit("cat", Kind.POINTWISE, (added,), (grad,))
        return (grad,)

    tape.record((rows,), (out,), (), rule)


def lower_sum_slices(tape: Forward, node: Node) -> None:
    """Part by part the slices' rows are stacked and added, then the parts put side by side. The gradient is the same for all slices."""
    (home,), (out,) = node.inputs, node.outputs
    sums = activation(tape, "sums", out.shape, out.item)
    stacked = activation(tape, "stacked", (SLICES, part(out.shape[0], PARTS), *out.shape[1:]), out.item)
    tape.emit("stack", Kind.POINTWISE, (home,), (stacked,))
    tape.emit("sum", Kind.REDUCE, (stacked,), (sums,))
    tape.emit("cat", Kind.POINTWISE, (sums,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("home.grad", home.shape, home.item)
        back.emit("cat", Kind.POINTWISE, gradients, (grad,))
        return (grad,)

    tape.record((home,), (out,), (), rule)


EXPERT_TENSOR_LOWERINGS: dict[str, Lowering] = {"copy_rows": lower_copy_rows, "sum_slices": lower_sum_slices}
