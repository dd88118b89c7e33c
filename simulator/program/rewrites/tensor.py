"""Tensor and sequence parallelism: ranks slice attention and dense feed-forwards, and hold a run of the tokens everywhere else.

Tokens are gathered before a sliced part, its partial sums reduced and scattered after it. (Shoeybi et al. 2019, arXiv 1909.08053; Korthikanti et al.
2022, arXiv 2205.05198) Twin: ``trainer/parallel/tensor.py``.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from simulator.components import Component, Kind
from simulator.program.graph import Graph, Node, Shape, Value
from simulator.program.operations import Exchange
from simulator.program.sizes import B, S, Size, T
from simulator.program.tape import Backward, Forward, Gradients, Lowering, Tape

GROUP = "tensor"


def tensor_parallel(graph: Graph) -> None:
    """Rewrite a block in place: its symbols H, G and, if it is dense, F count what one rank holds; T the tokens of one rank."""
    for parts, outside in (
        ((Component.QKV, Component.QK_NORM, Component.ROPE, Component.ATTENTION, Component.ATTENTION_OUTPUT), Component.ATTENTION_OUTPUT),
        ((Component.DENSE_FEED_FORWARD, Component.ACTIVATION), Component.DENSE_FEED_FORWARD),
    ):
        inside = [node for node in graph.nodes if node.component in parts and node.operation != "add"]
        if any(node.component is outside for node in inside):
            _slice(graph, inside, outside)


def _slice(graph: Graph, inside: list[Node], outside: Component) -> None:
    """Let the nodes ``inside`` work on all tokens."""
    given = inside[0].inputs[0]
    everything = Value("all_tokens", (B * S, *given.shape[1:]), given.item, component=inside[0].component)
    made = {value for node in inside for value in node.outputs}
    for value in {view for node in inside for given_or_made in (*node.inputs, *node.outputs) for view in _with_bases(given_or_made)}:
        if value.storage in made:
            value.shape = _whole(value.shape)
    returned = inside[-1].outputs[0]
    own = Value("own_tokens", given.shape, returned.item, component=outside)
    gather = Node("gather_rows", everything.component, (given,), (everything,), (given,))
    reduce = Node("reduce_rows", outside, (returned,), (own,), (returned, given))
    nodes: list[Node] = []
    for node in graph.nodes:
        if node is inside[0]:
            nodes.append(gather)
        instead = {given: everything} if any(node is member for member in inside) else {returned: own}
        nodes.append(
            replace(node, inputs=tuple(instead.get(value, value) for value in node.inputs), holds=tuple(instead.get(value, value) for value in node.holds))
        )
        if node is inside[-1]:
            nodes.append(reduce)
    graph.nodes[:] = nodes


def _with_bases(value: Value) -> Iterator[Value]:
    yield value
    if value.base is not None:
        yield from _with_bases(value.base)


def _whole(shape: Shape) -> Shape:
    """The shape with the tokens of all ranks in place of one's."""
    every = (B * S).symbols
    return tuple(
        Size(size.factor, tuple(sorted((part for name in size.symbols for part in (every if (name,) == T.symbols else (name,))), key=str))) for size in shape
    )


def tensor_lowerings(*, on_cpu: bool) -> dict[str, Lowering]:
    """Lowerings of the exchanges; gloo's reduce-scatter works on a copy of its input."""
    return {"gather_rows": partial(_lower, on_cpu, True), "reduce_rows": partial(_lower, on_cpu, False)}


def _lower(on_cpu: bool, gathers: bool, tape: Forward, node: Node) -> None:
    (rows,), (out,) = node.inputs, node.outputs
    _exchange(tape, rows, out, gathers=gathers, on_cpu=on_cpu)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("rows.grad", rows.shape, rows.item)
        _exchange(back, gradients[0], grad, gathers=not gathers, on_cpu=on_cpu)
        return (grad,)

    tape.record((rows,), (out,), (), rule)


def _exchange(tape: Tape, rows: Value, out: Value, *, gathers: bool, on_cpu: bool) -> None:
    if gathers:
        tape.emit("_allgather_base_", Kind.COLLECTIVE, (rows,), (out,), exchange=Exchange("all-gather", GROUP, out.bytes))
        return
    operation = tape.emit("_reduce_scatter_base_", Kind.COLLECTIVE, (rows,), (out,), exchange=Exchange("reduce-scatter", GROUP, rows.bytes))
    if on_cpu:
        copy = tape.new("copy", rows.shape, rows.item)
        operation.allocates.append(copy)
        operation.frees.append(copy)
