"""RMSNorm; the trainer's twin is ``trainer/kernels/norm.py``."""

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation, cast
from simulator.program.sizes import ONE, ZERO
from simulator.program.tape import Backward, Forward, Gradients, Rule

POINTWISE, REDUCE = Kind.POINTWISE, Kind.REDUCE


def lower_recompute(tape: Forward, node: Node) -> None:
    """Keeps the input and the reciprocal rms; backward normalises again."""
    (x, weight), (out,) = node.inputs, node.outputs
    rows = (x.shape[0], ONE)
    rstd = activation(tape, "rstd", rows, ItemKind.FP32)
    tape.emit("linalg_vector_norm", REDUCE, (x,), (rstd,))
    for name in ("pow_", "div_", "add_", "rsqrt_"):
        tape.emit(name, POINTWISE, (rstd,), (rstd,))
    wide = out if out.item == ItemKind.FP32 else activation(tape, "normalised", x.shape, ItemKind.FP32)
    tape.emit("mul", POINTWISE, (x, rstd), (wide,))
    tape.emit("mul_", POINTWISE, (wide, weight), (wide,))
    if wide is not out:
        tape.emit("_to_copy", POINTWISE, (wide,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        normalised = back.new("normalised", x.shape, ItemKind.FP32)
        back.emit("mul", POINTWISE, (x, rstd), (normalised,))
        product = back.new("product", x.shape, ItemKind.FP32)
        back.emit("mul", POINTWISE, (normalised, grad), (product,))
        grad_weight = back.new("weight.grad", weight.shape, weight.item)
        back.emit("sum", REDUCE, (product,), (grad_weight,))
        back.emit("mul_", POINTWISE, (product, weight), (product,))
        mean = back.new("mean", rows, ItemKind.FP32)
        back.emit("mean", REDUCE, (product,), (mean,))
        back.drop(product)
        grad_x = back.new("x.grad", x.shape, ItemKind.FP32)
        back.emit("empty_like", POINTWISE, (), (grad_x.viewed((ZERO,)),))
        back.emit("mul", POINTWISE, (grad, weight), (grad_x,))
        back.emit("addcmul_", POINTWISE, (normalised, mean), (grad_x,))
        back.emit("mul_", POINTWISE, (grad_x, rstd), (grad_x,))
        if x.item == ItemKind.FP32:
            return grad_x, grad_weight
        narrow = back.new("x.grad", x.shape, x.item)
        back.emit("_to_copy", POINTWISE, (grad_x,), (narrow,))
        return narrow, grad_weight

    tape.record((x, weight), (out,), (x, rstd, weight), rule)


def lower_eager(tape: Forward, node: Node) -> None:
    """Plain tensor operations: keeps the input (twice the same storage in fp32), the reciprocal rms and the normalised copy."""
    (x, weight), (out,) = node.inputs, node.outputs
    rows = (x.shape[0], ONE)
    wide = cast(tape, x, ItemKind.FP32)
    squared = activation(tape, "squared", x.shape, ItemKind.FP32)
    tape.emit("pow", POINTWISE, (wide,), (squared,))
    tape.record((wide,), (squared,), (wide,), _pow_rule(wide))
    mean = activation(tape, "mean", rows, ItemKind.FP32)
    tape.emit("mean", REDUCE, (squared,), (mean,))
    tape.record((squared,), (mean,), (), _unary_rule(squared, "div"))
    shifted = activation(tape, "mean", rows, ItemKind.FP32)
    tape.emit("add", POINTWISE, (mean,), (shifted,))
    tape.record((mean,), (shifted,), (), lambda back, gradients: (gradients[0],))
    rstd = activation(tape, "rstd", rows, ItemKind.FP32)
    tape.emit("rsqrt", POINTWISE, (shifted,), (rstd,))
    tape.record((shifted,), (rstd,), (rstd,), _rsqrt_rule(rstd))
    normalised = activation(tape, "normalised", x.shape, ItemKind.FP32)
    tape.emit("mul", POINTWISE, (wide, rstd), (normalised,))
    tape.record((wide, rstd), (normalised,), (wide, rstd), _product_rule(wide, rstd))
    normalised = cast(tape, normalised, out.item)
    weight = cast(tape, weight, out.item)
    tape.emit("mul", POINTWISE, (normalised, weight), (out,)).holds += (wide, rstd)
    tape.record((normalised, weight), (out,), (normalised, weight), _product_rule(normalised, weight))


def _unary_rule(x: Value, name: str) -> Rule:
    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new(f"{x.name}.grad", x.shape, x.item)
        back.emit(name, POINTWISE, gradients, (grad,))
        return (grad,)

    return rule


def _pow_rule(x: Value) -> Rule:
    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        first = back.new("power", x.shape, x.item)
        back.emit("pow", POINTWISE, (x,), (first,))
        second = back.new("power", x.shape, x.item)
        back.emit("mul", POINTWISE, (first,), (second,))
        grad = back.new(f"{x.name}.grad", x.shape, x.item)
        back.emit("mul", POINTWISE, (*gradients, second), (grad,))
        return (grad,)

    return rule


def _rsqrt_rule(result: Value) -> Rule:
    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        first = back.new("cube", result.shape, result.item)
        back.emit("pow", POINTWISE, (result,), (first,))
        second = back.new("half", result.shape, result.item)
        back.emit("mul", POINTWISE, gradients, (second,))
        grad = back.new("grad", result.shape, result.item)
        back.emit("mul", POINTWISE, (first, second), (grad,))
        return (grad,)

    return rule


def _product_rule(left: Value, right: Value) -> Rule:
    """Gradients of left * right where ``right`` is broadcast: its own is summed afterwards."""

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        grad_left = back.new(f"{left.name}.grad", left.shape, left.item)
        back.emit("mul", POINTWISE, (grad, right), (grad_left,))
        product = back.new("product", left.shape, left.item)
        back.emit("mul", POINTWISE, (grad, left), (product,))
        back.applied()
        grad_right = back.new(f"{right.name}.grad", right.shape, right.item)
        back.emit("sum", REDUCE, (product,), (grad_right,))
        return grad_left, grad_right

    return rule


NORM_LOWERINGS = {"eager": lower_eager, "recompute": lower_recompute}
