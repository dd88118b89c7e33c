"""Expert parallelism: rows go to the ranks that hold their experts, and come back.

Before the experts: the counts are exchanged and read by the host, rows and their weights go through an all-to-all and are
brought into the order of the local experts. After them: back into the order of arrival, and home. (GShard, arXiv 2006.16668.)
"""

from simulator.components import Component, Kind
from simulator.program.graph import Graph, ItemKind, Node, Value
from simulator.program.lowerings.basic import activation
from simulator.program.operations import Exchange, Toward
from simulator.program.sizes import E, L, Q
from simulator.program.tape import Backward, Forward, Gradients, Lowering

GROUP = "expert"
"""The group of ranks that share the experts of a layer."""


def expert_parallel(graph: Graph) -> None:
    """Rewrite a graph with experts in place."""
    for parameter in graph.parameters:
        if parameter.shape[0] == E and parameter.component is Component.EXPERTS:
            parameter.shape = (L, *parameter.shape[1:])
    nodes: list[Node] = []
    moved: dict[Value, Value] = {}
    local: tuple[Value, Value, Value] | None = None
    for node in graph.nodes:
        if node.operation == "order":
            nodes.append(node)
            slot, _, ends = node.outputs
            local = _local_order(nodes, slot, node.inputs[1])
            moved[ends] = local[2]
            continue
        if node.operation == "permute":
            assert local is not None
            nodes.append(node)
            moved[node.outputs[0]] = _dispatched(nodes, node.outputs[0], local[0])
            continue
        inputs = tuple(moved.get(value, value) for value in node.inputs)
        if node.operation == "combine":
            assert local is not None
            inputs = (_returned(nodes, inputs[0], local[1], node.inputs[1]), *node.inputs[1:])
        elif node.operation == "experts_linear" or (node.operation == "swiglu" and node.inputs != inputs):
            node.outputs[0].shape = (Q, *node.outputs[0].shape[1:])
        nodes.append(Node(node.operation, node.component, inputs, node.outputs))
    graph.nodes[:] = nodes


def _local_order(nodes: list[Node], slot: Value, counts: Value) -> tuple[Value, Value, Value]:
    received = Value("received_counts", (E,), ItemKind.INT64, component=Component.DISPATCH)
    nodes.append(Node("exchange_counts", Component.DISPATCH, (counts,), (received,)))
    by_expert = Value("by_expert", (Q,), ItemKind.INT64, component=Component.DISPATCH)
    by_arrival = Value("by_arrival", (Q,), ItemKind.INT64, component=Component.DISPATCH)
    ends = Value("local_ends", (L,), ItemKind.INT32, component=Component.DISPATCH)
    nodes.append(Node("order_local", Component.DISPATCH, (received,), (by_expert, by_arrival, ends)))
    return by_expert, by_arrival, ends


def _dispatched(nodes: list[Node], rows: Value, by_expert: Value) -> Value:
    shape = (Q, *rows.shape[1:])
    arrived = Value(f"arrived_{rows.name}", shape, rows.item, component=Component.DISPATCH)
    nodes.append(Node("exchange", Component.DISPATCH, (rows,), (arrived,)))
    ordered = Value(f"ordered_{rows.name}", shape, rows.item, component=Component.DISPATCH)
    nodes.append(Node("reorder", Component.DISPATCH, (arrived, by_expert), (ordered,)))
    return ordered


def _returned(nodes: list[Node], rows: Value, by_arrival: Value, token: Value) -> Value:
    back = Value("back_in_order", rows.shape, rows.item, component=Component.COMBINE)
    nodes.append(Node("reorder", Component.COMBINE, (rows, by_arrival), (back,)))
    home = Value("home", (token.shape[0], *rows.shape[1:]), rows.item, component=Component.COMBINE)
    nodes.append(Node("exchange", Component.COMBINE, (back,), (home,)))
    return home


def lower_exchange(tape: Forward, node: Node) -> None:
    """All-to-all of rows, to the experts or home; its gradient is the all-to-all back. The bytes are those of the rank's own tokens."""
    (rows,), (out,) = node.inputs, node.outputs
    dispatch = Q in out.shape
    there, back_again = (Toward.EXPERTS, Toward.HOME) if dispatch else (Toward.HOME, Toward.EXPERTS)
    wire = (rows if dispatch else out).bytes
    tape.emit("all_to_all_single", Kind.COLLECTIVE, (rows,), (out,), exchange=Exchange("all-to-all", GROUP, wire, there))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("rows.grad", rows.shape, rows.item)
        back.emit("all_to_all_single", Kind.COLLECTIVE, gradients, (grad,), exchange=Exchange("all-to-all", GROUP, wire, back_again))
        return (grad,)

    tape.record((rows,), (out,), (), rule)


def lower_exchange_counts(tape: Forward, node: Node) -> None:
    """All-to-all of the counts, which the host then reads."""
    tape.emit("all_to_all_single", Kind.COLLECTIVE, node.inputs, node.outputs, exchange=Exchange("all-to-all", GROUP, node.outputs[0].bytes))
    tape.emit("tolist", Kind.HOST_SYNC, node.outputs, ())


def lower_order_local(tape: Forward, node: Node) -> None:
    """Two index lists from the counts, and the ends of the local experts."""
    (received,), (by_expert, by_arrival, ends) = node.inputs, node.outputs
    tape.emit("sort", Kind.SORT, (received,), (activation(tape, "sorted", by_expert.shape, ItemKind.INT64), by_expert))
    tape.emit("argsort", Kind.SORT, (by_expert,), (by_arrival,))
    tape.emit("cumsum", Kind.POINTWISE, (received,), (ends,))


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
