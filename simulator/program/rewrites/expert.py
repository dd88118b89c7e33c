"""Expert parallelism: rows go to the ranks that hold their experts, and come back.

Before the experts: the counts are exchanged and read by the host, rows and their weights go through an all-to-all and are
brought into the order of the local experts. After them: back into the order of arrival, and home. (GShard, arXiv 2006.16668.)
With expert-tensor parallelism a row goes to every rank that holds a slice of its expert. Twin: ``trainer/parallel/expert.py``.
"""

from dataclasses import dataclass, field

from simulator.components import Component, Kind
from simulator.program.graph import Graph, ItemKind, Node, Shape, Value
from simulator.program.lowerings.basic import activation
from simulator.program.operations import Exchange, Toward
from simulator.program.rewrites.expert_tensor import copied, summed
from simulator.program.sizes import E, L, Q, symbol
from simulator.program.tape import Backward, Forward, Gradients, Lowering

GROUP = "expert"
"""The ranks among which rows travel."""

INT64 = ItemKind.INT64
RANKS, SLICES = symbol("g"), symbol("z")


def expert_parallel(graph: Graph, *, sliced: bool) -> None:
    """Rewrite a graph with experts in place; ``sliced``: several ranks hold a slice of each expert."""
    for parameter in graph.parameters:
        if parameter.shape[0] == E and parameter.component is Component.EXPERTS:
            parameter.shape = (L, *parameter.shape[1:])
    linears = [index for index, node in enumerate(graph.nodes) if node.operation == "experts_linear"]
    first, last = linears[0], linears[-1]
    inside = graph.nodes[first : last + 1]
    rows, _, ends = inside[0].inputs
    weights = next(node.inputs[-1] for node in inside if node.component is Component.ACTIVATION)
    journey = _outward(rows, weights, ends, sliced=sliced)
    local = [_local(node, journey.moved) for node in inside]
    returned = local[-1].outputs[0]
    after = _homeward(returned, rows, journey, sliced=sliced)
    home = {returned: after[-1].outputs[0]}
    rest = [
        Node(
            node.operation,
            node.component,
            tuple(home.get(value, value) for value in node.inputs),
            node.outputs,
            tuple(home.get(value, value) for value in node.holds),
        )
        for node in graph.nodes[last + 1 :]
    ]
    graph.nodes[:] = [*graph.nodes[:first], *journey.nodes, *local, *after, *rest]


@dataclass
class _Journey:
    """The nodes that bring rows here. ``moved``: what the experts take instead of what left; ``by_arrival``: the way back."""

    nodes: list[Node] = field(default_factory=list)
    moved: dict[Value, Value] = field(default_factory=dict)
    by_arrival: Value | None = None

    def add(self, operation: str, inputs: tuple[Value, ...], *outputs: tuple[str, Shape, ItemKind], holds: tuple[Value, ...] = ()) -> tuple[Value, ...]:
        made = tuple(Value(name, shape, item, component=Component.DISPATCH) for name, shape, item in outputs)
        self.nodes.append(Node(operation, Component.DISPATCH, inputs, made, (*inputs, *holds)))
        return made


def _outward(rows: Value, weights: Value, ends: Value, *, sliced: bool) -> _Journey:
    journey = _Journey()
    sent, received = journey.add("exchange_counts", (ends,), ("sent", (E, SLICES), INT64), ("received", (L, RANKS), INT64))
    local_ends, by_expert, by_arrival = journey.add(
        "order_local", (received,), ("ends", (L,), ItemKind.INT32), ("by_expert", (Q,), INT64), ("by_arrival", (Q,), INT64), holds=(sent,)
    )
    leaving = [copied(journey.nodes, value) if sliced else value for value in (rows, weights)]
    for value, going in zip((rows, weights), leaving, strict=True):
        shape = (Q, *value.shape[1:])
        (arrived,) = journey.add("exchange", (going,), (f"arrived_{value.name}", shape, value.item), holds=(by_expert, by_arrival))
        # Only the call has a name for what arrived; what was copied for the slices has one until all have left.
        (journey.moved[value],) = journey.add("reorder", (arrived, by_expert), (f"local_{value.name}", shape, value.item), holds=tuple(leaving))
    journey.moved[ends], journey.by_arrival = local_ends, by_arrival
    return journey


def _local(node: Node, moved: dict[Value, Value]) -> Node:
    """The node on the rows that arrived."""
    for value in node.outputs:
        value.shape = (Q, *value.shape[1:])
    inputs, holds = (tuple(moved.get(value, value) for value in values) for values in (node.inputs, node.holds))
    return Node(node.operation, node.component, inputs, node.outputs, holds)


def _homeward(returned: Value, rows: Value, journey: _Journey, *, sliced: bool) -> list[Node]:
    """The experts' result has a name until the rows are home, and so have the rows that left."""
    assert journey.by_arrival is not None
    count = rows.shape[0] * SLICES if sliced else rows.shape[0]
    back = Value("back_in_order", returned.shape, returned.item, component=Component.COMBINE)
    home = Value("home", (count, *returned.shape[1:]), returned.item, component=Component.COMBINE)
    held = (returned, rows)
    nodes = [
        Node("reorder", Component.COMBINE, (returned, journey.by_arrival), (back,), held),
        Node("exchange", Component.COMBINE, (back,), (home,), (back, *held)),
    ]
    if sliced:
        summed(nodes, home, rows, (back, *held))
    return nodes


def lower_exchange(tape: Forward, node: Node) -> None:
    """All-to-all of rows, to the experts or home; its gradient is the all-to-all back. The bytes are those of the rank's own tokens."""
    (rows,), (out,) = node.inputs, node.outputs
    dispatch = out.shape[0] == Q
    there, back_again = (Toward.EXPERTS, Toward.HOME) if dispatch else (Toward.HOME, Toward.EXPERTS)
    wire = (rows if dispatch else out).bytes
    tape.emit("alltoall_base_", Kind.COLLECTIVE, (rows,), (out,), exchange=Exchange("all-to-all", GROUP, wire, there))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("rows.grad", rows.shape, rows.item)
        back.emit("alltoall_base_", Kind.COLLECTIVE, gradients, (grad,), exchange=Exchange("all-to-all", GROUP, wire, back_again))
        return (grad,)

    tape.record((rows,), (out,), (), rule)


def lower_exchange_counts(tape: Forward, node: Node) -> None:
    """All-to-all of the counts, which follow from the ends and which the host then reads."""
    (ends,), (sent, received) = node.inputs, node.outputs
    counts = activation(tape, "counts", (E,), INT64)
    tape.emit("diff", Kind.POINTWISE, (ends,), (counts,))
    tape.emit("repeat_interleave", Kind.GATHER, (counts,), (sent,))
    tape.emit("alltoall_base_", Kind.COLLECTIVE, (sent,), (received,), exchange=Exchange("all-to-all", GROUP, sent.bytes))
    tape.emit("tolist", Kind.HOST_SYNC, (sent, received), ())


def lower_order_local(tape: Forward, node: Node) -> None:
    """Two index lists from the counts, and the ends of the local experts."""
    (received,), (ends, by_expert, by_arrival) = node.inputs, node.outputs
    numbers = activation(tape, "numbers", (L, RANKS), INT64)
    expert = activation(tape, "expert", by_expert.shape, INT64)
    tape.emit("repeat", Kind.POINTWISE, (), (numbers,))
    tape.emit("repeat_interleave", Kind.GATHER, (numbers, received), (expert,))
    tape.emit("sort", Kind.SORT, (expert,), (activation(tape, "sorted", by_expert.shape, INT64), by_expert))
    tape.emit("cumsum", Kind.POINTWISE, (received,), (ends,))
    tape.emit("sort", Kind.SORT, (by_expert,), (activation(tape, "sorted", by_expert.shape, INT64), by_arrival))
    tape.operations[-1].holds += (expert,)


def lower_reorder(tape: Forward, node: Node) -> None:
    """``index_select`` by a permutation; its gradient scatters back without additions."""
    (rows, index), (out,) = node.inputs, node.outputs
    tape.emit("index_select", Kind.GATHER, (rows, index), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        zeros = back.new("zeros", rows.shape, rows.item)
        back.emit("new_zeros", Kind.POINTWISE, (), (zeros,))
        grad = back.new("rows.grad", rows.shape, rows.item)
        back.emit("index_add", Kind.SCATTER, (zeros, *gradients, index), (grad,))
        return grad, None

    tape.record((rows, index), (out,), (index,), rule)


EXPERT_PARALLEL_LOWERINGS: dict[str, Lowering] = {
    "exchange": lower_exchange,
    "exchange_counts": lower_exchange_counts,
    "order_local": lower_order_local,
    "reorder": lower_reorder,
}
