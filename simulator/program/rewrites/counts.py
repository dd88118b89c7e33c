"""The balancing loss over the tokens of several ranks: the counts of the experts' tokens are summed over them before it takes shares.

Twin: ``trainer/parallel/parallelize.py``.
"""

from dataclasses import replace
from functools import partial

from simulator.components import Component, Kind
from simulator.program.graph import Graph, ItemKind, Node, Value
from simulator.program.operations import Exchange
from simulator.program.tape import Forward, Lowering


def count_over_ranks(graph: Graph) -> None:
    """Rewrite a block in place; without a balancing loss nothing changes."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.operation != "load_balancing_loss":
            nodes.append(node)
            continue
        probability, counts = node.inputs
        total = Value("total_counts", counts.shape, ItemKind.INT64, component=Component.AUXILIARY_LOSSES)
        nodes.append(Node("sum_counts", Component.AUXILIARY_LOSSES, (counts,), (total,), (probability,)))
        nodes.append(replace(node, inputs=(probability, total), holds=(*(value for value in node.holds if value is not counts), total)))
    graph.nodes[:] = nodes


def counting_lowerings(group: str) -> dict[str, Lowering]:
    """Lowering of the sum."""
    return {"sum_counts": partial(_lower, group)}


def _lower(group: str, tape: Forward, node: Node) -> None:
    (counts,), (total,) = node.inputs, node.outputs
    tape.emit("clone", Kind.POINTWISE, (counts,), (total,))
    tape.emit("allreduce_", Kind.COLLECTIVE, (total,), (total,), exchange=Exchange("all-reduce", group, total.bytes))
