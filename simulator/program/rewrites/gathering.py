"""Permutation that gathers in both directions: the order tells the row of each choice as well, and nothing is added into zeros.

Twin: ``trainer/kernels/permutation.py`` (``gather``).
"""

from dataclasses import replace

from simulator.components import Component
from simulator.program.graph import Graph, ItemKind, Node, Value


def gather_both_ways(graph: Graph) -> None:
    """Rewrite a block with experts, none of which has a capacity, in place."""
    order = next(node for node in graph.nodes if node.operation == "order")
    slot, token, _ = order.outputs
    row = Value("row", slot.shape, ItemKind.INT32, component=Component.PERMUTATION)
    for value in (slot, token):
        value.item = ItemKind.INT32

    def rewritten(node: Node) -> Node:
        if node.operation == "combine":
            return replace(node, operation="gather_combine", inputs=(*node.inputs, row), holds=(*node.holds, row))
        if node.operation == "permute" and node.inputs[1] is token:
            # The order is one thing: what runs again from here on keeps all of it.
            return replace(node, operation="gather_permute", inputs=(*node.inputs, row), holds=(*node.holds, slot))
        if node.operation == "permute":
            return replace(node, operation="gather_reorder", inputs=(*node.inputs, row))
        return node

    graph.nodes[:] = [replace(order, operation="gather_order", outputs=(*order.outputs, row)) if node is order else rewritten(node) for node in graph.nodes]
