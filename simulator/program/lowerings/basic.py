"""Pieces that several lowerings share: matrix products, casts, additions, sums."""

from collections.abc import Sequence

from simulator.components import Kind, Role
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.operations import Gemm
from simulator.program.sizes import ONE, Size
from simulator.program.tape import Backward, Forward, Gradients


def cast(tape: Forward, value: Value, item: ItemKind) -> Value:
    """``value.to(item)``; element types that are the same under every plan need nothing. A cast is undone in backward."""
    if value.item == item:
        return value
    role = Role.ACTIVATION
    out = Value(f"{value.name}.cast", value.shape, item, role, tape.component)
    tape.emit("_to_copy", Kind.POINTWISE, (value,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new(f"{value.name}.grad", value.shape, value.item)
        back.emit("_to_copy", Kind.POINTWISE, gradients, (grad,))
        return (grad,)

    tape.record((value,), (out,), (), rule)
    return out


def linear(tape: Forward, x: Value, weight: Value, out: Value) -> None:
    """out = x W^T for a weight (out, in), cast to the type of ``x``. Keeps both factors; the weight's gradient comes first."""
    weight = cast(tape, weight, x.item)
    rows, inner, columns = x.shape[0], x.shape[1], out.shape[1]
    tape.emit("mm", Kind.GEMM, (x, weight), (out,), gemm=Gemm(rows, columns, inner))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        grad_weight = back.new(f"{weight.name}.grad", weight.shape, weight.item)
        back.emit("mm", Kind.GEMM, (grad, x), (grad_weight,), gemm=Gemm(columns, inner, rows))
        grad_x = back.new(f"{x.name}.grad", x.shape, x.item)
        back.emit("mm", Kind.GEMM, (grad, weight), (grad_x,), gemm=Gemm(rows, inner, columns))
        return grad_x, grad_weight

    tape.record((x, weight), (out,), (x, weight), rule)


def lower_linear(tape: Forward, node: Node) -> None:
    """A linear layer."""
    (x, weight), (out,) = node.inputs, node.outputs
    linear(tape, x, weight, out)


def lower_add(tape: Forward, node: Node) -> None:
    """x + y of equal shapes: the gradient goes on to both as it is."""
    tape.emit("add", Kind.POINTWISE, node.inputs, node.outputs)
    tape.record(node.inputs, node.outputs, (), lambda back, gradients: (gradients[0], gradients[0]))


def split(tape: Forward, whole: Value, parts: Sequence[Value]) -> None:
    """``parts`` are views of the columns of ``whole``; their gradients are joined again."""

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new(f"{whole.name}.grad", whole.shape, whole.item)
        back.emit("cat", Kind.POINTWISE, gradients, (grad,))
        return (grad,)

    tape.record((whole,), parts, (), rule)


def mean(tape: Forward, x: Value, out: Value, *, shape_name: str = "mean") -> None:
    """Mean over all or the first dimension; backward spreads the gradient."""
    tape.emit(shape_name, Kind.REDUCE, (x,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new(f"{x.name}.grad", x.shape, x.item)
        back.emit("div", Kind.POINTWISE, gradients, (grad,))
        return (grad,)

    tape.record((x,), (out,), (), rule)


def scale(tape: Forward, x: Value, out: Value, name: str = "mul") -> None:
    """x times a number of the host."""
    tape.emit(name, Kind.POINTWISE, (x,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new(f"{x.name}.grad", x.shape, x.item)
        back.emit(name, Kind.POINTWISE, gradients, (grad,))
        return (grad,)

    tape.record((x,), (out,), (), rule)


def scalar(tape: Forward, name: str) -> Value:
    """A new fp32 scalar."""
    return tape.new(name, (ONE,), ItemKind.FP32, Role.ACTIVATION)


def activation(tape: Forward, name: str, shape: tuple[Size, ...], item: ItemKind) -> Value:
    """A new storage of the forward pass."""
    return tape.new(name, shape, item, Role.ACTIVATION)
