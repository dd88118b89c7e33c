"""Rotary positions and causal attention; the trainer's twins are ``trainer/kernels/rope.py`` and PyTorch's SDPA."""

from collections.abc import Callable

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation
from simulator.program.sizes import ZERO
from simulator.program.tape import Backward, Forward, Gradients, Tape

POINTWISE = Kind.POINTWISE


def lower_rope(tape: Forward, node: Node) -> None:
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
        tape.emit("_to_copy", POINTWISE, (turned, x, given), (out,), traffic=(turned, out))


def lower_attention(tape: Forward, node: Node) -> None:
    """Flash attention: keeps queries, keys, values, output and the log of each row's sum. FLOPs are of the causal half.

    Forward: two products of 2·B·H·S·S·C / 2 each; backward: five (Dao 2022, arXiv 2205.14135, section 3.1).
    """
    query, key, value = node.inputs
    (out,) = node.outputs
    batch, sequence, heads, _ = query.shape
    lse = activation(tape, "log_sum_exp", (batch, heads, sequence), ItemKind.FP32)
    scores = out.elements * sequence
    tape.emit("scaled_dot_product_attention", Kind.ATTENTION, (query, key, value), (out, lse), flops=2 * scores)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        made = tuple(back.new(f"{given.name}.grad", given.shape, given.item) for given in (query, key, value))
        back.emit("scaled_dot_product_attention_backward", Kind.ATTENTION, (*gradients, query, key, value, out, lse), made, flops=5 * scores)
        return made

    tape.record((query, key, value), (out,), (query, key, value, out, lse), rule)
