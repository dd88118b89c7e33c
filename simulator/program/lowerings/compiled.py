"""What the trainer writes otherwise for a compiler: rotary positions and softmax as plain formulas, queries, keys and values of one product.

Twins: ``trainer/kernels/rope.py`` and ``trainer/model/attention.py`` under ``torch.compiler.is_compiling``; the decomposition of softmax is PyTorch's.
"""

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation, cast, linear, split
from simulator.program.lowerings.rope import of_parts
from simulator.program.sizes import ONE, Y
from simulator.program.tape import Backward, Forward, Gradients, Lowering
from simulator.specs import Implementation

POINTWISE, REDUCE = Kind.POINTWISE, Kind.REDUCE


def lower_rope(tape: Forward, node: Node) -> None:
    """A rotation, and back."""
    (x, cosine, sine), (out,) = node.inputs, node.outputs
    tape.emit("rope", POINTWISE, (x, cosine, sine), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("x.grad", x.shape, x.item)
        back.emit("rope", POINTWISE, (*gradients, cosine, sine), (grad,))
        return grad, None, None

    tape.record((x, cosine, sine), (out,), (cosine, sine), rule, custom=True)


def lower_softmax(tape: Forward, node: Node) -> None:
    """exp(x - max) over its sum."""
    (x,), (out,) = node.inputs, node.outputs
    top, total = (activation(tape, name, (x.shape[0], ONE), ItemKind.FP32) for name in ("amax", "sum"))
    exponential = activation(tape, "exp", x.shape, ItemKind.FP32)
    tape.emit("amax", REDUCE, (x,), (top,))
    tape.emit("exp", POINTWISE, (x, top), (exponential,))
    tape.emit("sum", REDUCE, (exponential,), (total,))
    tape.emit("div", POINTWISE, (exponential, total), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        product, grad = (back.new(name, x.shape, x.item) for name in ("product", "logits.grad"))
        summed = back.new("sum", total.shape, x.item)
        back.emit("mul", POINTWISE, (*gradients, out), (product,))
        back.emit("sum", REDUCE, (product,), (summed,))
        back.emit("addcmul", POINTWISE, (product, out, summed), (grad,))
        return (grad,)

    tape.record((x,), (out,), (out,), rule)


def lower_joined_linear(tape: Forward, node: Node) -> None:
    """One product with the weights side by side, whose gradients lie in one storage as well."""
    (x, *weights), (together,) = node.inputs, node.outputs
    joined = activation(tape, "weights", (Y, weights[0].shape[1]), weights[0].item)
    tape.emit("cat", POINTWISE, weights, (joined,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        return [gradients[0].part(weight.name, weight.shape) for weight in weights]

    tape.record(weights, (joined,), (), rule)
    linear(tape, x, cast(tape, joined, x.item), together)


def lower_split(tape: Forward, node: Node) -> None:
    """Columns of a product as views of it."""
    split(tape, node.inputs[0], node.outputs)


def lower_rows_of_heads(tape: Forward, node: Node) -> None:
    """A copy of some columns, as rows of one head each."""
    (x,), (out,) = node.inputs, node.outputs
    tape.emit("clone", POINTWISE, (x,), (out,))
    tape.record((x,), (out,), (), lambda back, gradients: (gradients[0].viewed(x.shape),))


def compiled_lowerings(implementation: Implementation) -> dict[str, Lowering]:
    """What stands in place of a lowering of eager code, and what compiled blocks alone have."""
    plain: dict[str, Lowering] = {"rope": lower_rope, "packed_rope": of_parts(lower_rope)}
    return {
        **(plain if implementation.rope == "eager" else {}),
        "rows_of_heads": lower_rows_of_heads,
        "softmax": lower_softmax,
        "joined_linear": lower_joined_linear,
        "split": lower_split,
    }
