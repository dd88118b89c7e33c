"""Order, permutation, grouped linear layers and combine; twins: ``trainer/kernels/permutation.py`` and ``grouped_linear.py``."""

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation, cast
from simulator.program.operations import Gemm
from simulator.program.sizes import ZERO, M
from simulator.program.tape import Backward, Forward, Gradients

POINTWISE, GATHER, SCATTER = Kind.POINTWISE, Kind.GATHER, Kind.SCATTER


def lower_order(tape: Forward, node: Node) -> None:
    """Sort the choices by expert; nothing here has a gradient."""
    (experts, counts), (slot, token, ends) = node.inputs, node.outputs
    tape.emit("sort", Kind.SORT, (experts,), (activation(tape, "sorted", slot.shape, ItemKind.INT64), slot))
    tape.emit("floor_divide", POINTWISE, (slot,), (token,))
    tape.emit("cumsum", POINTWISE, (counts,), (ends,), opaque=True)


def lower_order_with_capacity(tape: Forward, node: Node) -> None:
    """Sort the choices by expert, then take as many of each as it has rows; nothing here has a gradient."""
    (experts, counts), (slot, token, ends, empty) = node.inputs, node.outputs
    choices, row_of = experts.elements, slot.shape
    ordered, place = activation(tape, "sorted", (choices,), ItemKind.INT64), activation(tape, "place", (M,), ItemKind.INT64)
    tape.emit("sort", Kind.SORT, (experts,), (activation(tape, "sorted", (choices,), ItemKind.INT64), ordered))
    tape.emit("arange", POINTWISE, (), (place,))
    tape.emit("ge", POINTWISE, (place, counts), (empty,))
    summed, first = (activation(tape, name, counts.shape, ItemKind.INT64) for name in ("summed", "first"))
    tape.emit("cumsum", POINTWISE, (counts,), (summed,), opaque=True)
    tape.emit("sub", POINTWISE, (summed, counts), (first,))
    row = activation(tape, "row", row_of, ItemKind.INT64)
    tape.emit("add", POINTWISE, (first, place), (row,))
    tape.emit("clamp_", POINTWISE, (row,), (row,))
    tape.emit("index_select", GATHER, (ordered, row), (slot,))
    tape.emit("arange", POINTWISE, (), (ends,))
    tape.emit("mul_", POINTWISE, (ends,), (ends,))
    # What has a name lives until the order returns.
    tape.emit("floor_divide", POINTWISE, (slot,), (token,)).holds += (ordered, place, first, row)


def lower_mask(tape: Forward, node: Node) -> None:
    """Zero where the mask is set; keeps the mask."""
    (x, mask), (out,) = node.inputs, node.outputs
    tape.emit("masked_fill", POINTWISE, (x, mask), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("x.grad", x.shape, x.item)
        back.emit("masked_fill", POINTWISE, (*gradients, mask), (grad,))
        return grad, None

    tape.record((x, mask), (out,), (mask,), rule)


def lower_permute(tape: Forward, node: Node) -> None:
    """``index_select`` of rows; its gradient adds them up in a new storage, copied from zeros."""
    (x, index), (out,) = node.inputs, node.outputs
    tape.emit("index_select", GATHER, (x, index), (out,), traffic=(out, out, index))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        zeros = back.new("zeros", x.shape, x.item)
        back.emit("new_zeros", POINTWISE, (), (zeros,))
        grad = back.new("x.grad", x.shape, x.item)
        back.emit("index_add", SCATTER, (zeros, *gradients, index), (grad,))
        return grad, None

    tape.record((x, index), (out,), (index,), rule)


def lower_grouped(tape: Forward, node: Node) -> None:
    """One grouped GEMM of rows (R, I) with weights (E, I, O): keeps both factors and the ends; the weights' gradient comes first."""
    (x, given, ends), (out,) = node.inputs, node.outputs
    weight = cast(tape, given, x.item)
    rows, (experts, inner, columns) = x.shape[0], weight.shape
    tape.emit("_grouped_mm", Kind.GROUPED_GEMM, (x, weight, ends), (out,), gemm=Gemm(rows, columns, inner, experts))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        grad_weight = back.new(f"{weight.name}.grad", weight.shape, weight.item)
        back.emit("_grouped_mm", Kind.GROUPED_GEMM, (x, grad, ends), (grad_weight,), gemm=Gemm(inner, columns, rows, experts))
        grad_x = back.new("x.grad", x.shape, x.item)
        back.emit("_grouped_mm", Kind.GROUPED_GEMM, (grad, weight, ends), (grad_x,), gemm=Gemm(rows, inner, columns, experts))
        return grad_x, grad_weight, None

    tape.record((x, weight, ends), (out,), (x, weight, ends), rule)


def lower_loop(tape: Forward, node: Node) -> None:
    """One GEMM an expert into its place of one storage, after the host has read the ends; keeps both factors."""
    (x, given, ends), (out,) = node.inputs, node.outputs
    weight = cast(tape, given, x.item)
    rows, (experts, inner, columns) = x.shape[0], weight.shape
    tape.emit("tolist", Kind.HOST_SYNC, (ends,), ())
    tape.emit("new_empty", POINTWISE, (), (out.viewed((ZERO,)),))
    tape.emit("mm", Kind.GROUPED_GEMM, (x, weight), (out,), gemm=Gemm(rows, columns, inner, experts), launches=experts)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        grad_weight = back.new(f"{weight.name}.grad", weight.shape, weight.item)
        grad_x = back.new("x.grad", x.shape, x.item)
        for made in (grad_weight, grad_x):
            back.emit("empty_like", POINTWISE, (), (made.viewed((ZERO,)),))
        back.emit("mm", Kind.GROUPED_GEMM, (x, grad), (grad_weight,), gemm=Gemm(inner, columns, rows, experts), launches=experts)
        back.emit("mm", Kind.GROUPED_GEMM, (grad, weight), (grad_x,), gemm=Gemm(rows, inner, columns, experts), launches=experts)
        return grad_x, grad_weight, None

    tape.record((x, weight, ends), (out,), (x, weight), rule, custom=True)


def lower_batched(tape: Forward, node: Node) -> None:
    """One batched GEMM of equal numbers of rows of each expert: keeps both factors; the weights' gradient comes first.

    It has the rate of a GEMM, which no device profile has apart for batches, and no overhead for each further product.
    """
    (x, given, ends), (out,) = node.inputs, node.outputs
    weight = cast(tape, given, x.item)
    rows, (experts, inner, columns) = x.shape[0], weight.shape
    tape.emit("bmm", Kind.GEMM, (x, weight), (out,), gemm=Gemm(rows, columns, inner, experts))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        grad_weight = back.new(f"{weight.name}.grad", weight.shape, weight.item)
        back.emit("bmm", Kind.GEMM, (x, grad), (grad_weight,), gemm=Gemm(inner, columns, rows, experts))
        grad_x = back.new("x.grad", x.shape, x.item)
        back.emit("bmm", Kind.GEMM, (grad, weight), (grad_x,), gemm=Gemm(rows, inner, columns, experts))
        return grad_x, grad_weight, None

    tape.record((x, weight, ends), (out,), (x, weight), rule)


def lower_combine(tape: Forward, node: Node) -> None:
    """Add each row to its token in zeros; keeps the tokens and no row."""
    (rows, token), (out,) = node.inputs, node.outputs
    tape.emit("new_zeros", POINTWISE, (), (out,))
    tape.emit("index_add_", SCATTER, (out, rows, token), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("rows.grad", rows.shape, rows.item)
        back.emit("index_select", GATHER, (*gradients, token), (grad,), traffic=(grad, grad, token))
        return grad, None

    tape.record((rows, token), (out,), (token,), rule, custom=True)


EXPERT_LOWERINGS = {"grouped": lower_grouped, "packed": lower_grouped, "loop": lower_loop, "batched": lower_batched}
