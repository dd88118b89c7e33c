"""SwiGLU with the weight of each row; the trainer's twin is ``trainer/kernels/swiglu.py``."""

from dataclasses import replace

from simulator.components import Kind
from simulator.program.graph import Node, Value
from simulator.program.lowerings.basic import activation, cast, split
from simulator.program.sizes import Size
from simulator.program.tape import Backward, Forward, Gradients, Lowering

POINTWISE, REDUCE = Kind.POINTWISE, Kind.REDUCE


def lower_recompute(tape: Forward, node: Node) -> None:
    """Keeps gate, up and weights; backward computes silu again."""
    gate, up, *weights = node.inputs
    (out,) = node.outputs
    tape.emit("silu", POINTWISE, (gate,), (out,))
    for factor in (up, *weights):
        tape.emit("mul_", POINTWISE, (out, factor), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        silu = back.new("silu", gate.shape, gate.item)
        back.emit("silu", POINTWISE, (gate,), (silu,))
        grad_weights: list[Value] = []
        for weight in weights:
            product = back.new("product", gate.shape, gate.item)
            back.emit("mul", POINTWISE, (silu, up), (product,))
            back.emit("mul_", POINTWISE, (product, grad), (product,))
            grad_weight = back.new("weight.grad", weight.shape, weight.item)
            back.emit("sum", REDUCE, (product,), (grad_weight,))
            back.drop(product)
            grad_weights.append(grad_weight)
            weighted = back.new("weighted", gate.shape, gate.item)
            if weight.item == gate.item:
                back.emit("mul", POINTWISE, (grad, weight), (weighted,))
            else:
                narrow = back.new("weight.cast", weight.shape, gate.item)
                back.emit("_to_copy", POINTWISE, (weight,), (narrow,))
                back.emit("mul", POINTWISE, (grad, narrow), (weighted,))
                back.drop(narrow)
            grad = weighted
        back.emit("mul_", POINTWISE, (silu, grad), (silu,))
        product = back.new("product", gate.shape, gate.item)
        back.emit("mul", POINTWISE, (grad, up), (product,))
        grad_gate = back.new("gate.grad", gate.shape, gate.item)
        back.emit("silu_backward", POINTWISE, (product, gate), (grad_gate,))
        return grad_gate, silu, *grad_weights

    tape.record(node.inputs, (out,), node.inputs, rule, custom=True)


def lower_eager(tape: Forward, node: Node) -> None:
    """Plain tensor operations: keeps gate, silu(gate) and up, and with weights the unweighted product."""
    gate, up, *weights = node.inputs
    (out,) = node.outputs
    silu = activation(tape, "silu", gate.shape, gate.item)
    tape.emit("silu", POINTWISE, (gate,), (silu,))

    def silu_rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad_gate = back.new("gate.grad", gate.shape, gate.item)
        back.emit("silu_backward", POINTWISE, (*gradients, gate), (grad_gate,))
        return (grad_gate,)

    tape.record((gate,), (silu,), (gate,), silu_rule)
    hidden = activation(tape, "hidden", gate.shape, gate.item) if weights else out
    tape.emit("mul", POINTWISE, (silu, up), (hidden,))

    def product_rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad_silu = back.new("silu.grad", gate.shape, gate.item)
        back.emit("mul", POINTWISE, (*gradients, up), (grad_silu,))
        grad_up = back.new("up.grad", gate.shape, gate.item)
        back.emit("mul", POINTWISE, (*gradients, silu), (grad_up,))
        return grad_silu, grad_up

    tape.record((silu, up), (hidden,), (silu, up), product_rule)
    for given in weights:
        weight = cast(tape, given, gate.item)
        tape.emit("mul", POINTWISE, (hidden, weight), (out,))

        def weight_rule(back: Backward, gradients: list[Value], weight: Value = weight) -> Gradients:
            grad_hidden = back.new("hidden.grad", gate.shape, gate.item)
            back.emit("mul", POINTWISE, (*gradients, weight), (grad_hidden,))
            product = back.new("product", gate.shape, gate.item)
            back.emit("mul", POINTWISE, (*gradients, hidden), (product,))
            back.applied()
            grad_weight = back.new("weight.grad", weight.shape, weight.item)
            back.emit("sum", REDUCE, (product,), (grad_weight,))
            return grad_hidden, grad_weight

        tape.record((hidden, weight), (out,), (hidden, weight), weight_rule)


def lower_triton(tape: Forward, node: Node) -> None:
    """One pass each way; keeps gate, up and weights."""
    gate, up, *weights = node.inputs
    tape.emit("triton_swiglu", POINTWISE, node.inputs, node.outputs, opaque=True)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        made = [back.new(f"{given.name}.grad", given.shape, given.item) for given in (gate, up, *weights)]
        back.emit("triton_swiglu_backward", POINTWISE, (*gradients, *node.inputs), made, opaque=True)
        return made

    tape.record(node.inputs, node.outputs, node.inputs, rule)


def _of_halves(lowering: Lowering) -> Lowering:
    """The same of gate and up side by side: split, and their gradients joined."""

    def lower_packed(tape: Forward, node: Node) -> None:
        both, *weights = node.inputs
        half = (both.shape[0], _half(both.shape[1]))
        gate, up = (both.part(name, half) for name in ("gate", "up"))
        split(tape, both, (gate, up))
        lowering(tape, replace(node, inputs=(gate, up, *weights)))

    return lower_packed


def lower_packed_triton(tape: Forward, node: Node) -> None:
    """One pass each way; keeps gate and up, and weights, and writes the gradients side by side."""
    tape.emit("packed_swiglu", POINTWISE, node.inputs, node.outputs, opaque=True)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        made = [back.new(f"{given.name}.grad", given.shape, given.item) for given in node.inputs]
        back.emit("packed_swiglu_backward", POINTWISE, (*gradients, *node.inputs), made, opaque=True)
        return made

    tape.record(node.inputs, node.outputs, node.inputs, rule, custom=True)


def _half(size: Size) -> Size:
    return Size(size.factor // 2, size.symbols)


PACKED_SWIGLU_LOWERINGS = {"eager": _of_halves(lower_eager), "recompute": _of_halves(lower_recompute), "triton": lower_packed_triton}
SWIGLU_LOWERINGS = {"eager": lower_eager, "recompute": lower_recompute, "triton": lower_triton}
