"""Causal attention; the trainer's twin is PyTorch's SDPA."""

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation
from simulator.program.tape import Backward, Forward, Gradients


def lower_attention(tape: Forward, node: Node) -> None:
    """Flash attention: keeps queries, keys, values, output and the log of each row's sum. FLOPs are of the causal half.

    Forward: two products of 2·B·H·S·S·C / 2 each; backward: five (Dao 2022, arXiv 2205.14135, section 3.1).
    """
    query, key, value = node.inputs
    (out,) = node.outputs
    batch, sequence, heads, _ = query.shape
    lse = activation(tape, "log_sum_exp", (batch, heads, sequence), ItemKind.FP32)
    scores, product = lse.elements * sequence, out.elements * sequence
    tape.emit("scaled_dot_product_attention", Kind.ATTENTION, (query, key, value), (out, lse), flops=2 * product, scores=scores)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        made = tuple(back.new(f"{given.name}.grad", given.shape, given.item) for given in (query, key, value))
        read = (*gradients, query, key, value, out, lse)
        back.emit("scaled_dot_product_attention_backward", Kind.ATTENTION, read, made, flops=5 * product, scores=scores)
        return made

    tape.record((query, key, value), (out,), (query, key, value, out, lse), rule)
