"""Packed experts: gate and up lie side by side in one matrix, and one grouped product makes both. Twin: ``trainer/model/moe.py`` (``Experts``)."""

from dataclasses import replace

from simulator.components import Component, Role
from simulator.program.graph import Graph, Node, Value


def pack_experts(graph: Graph) -> None:
    """Rewrite a block with experts in place."""
    swiglu = next(node for node in graph.nodes if node.component is Component.ACTIVATION)
    halves = [node for node in graph.nodes if node.component is Component.EXPERTS and set(node.outputs) & set(swiglu.inputs)]
    matrices = [node.inputs[1] for node in halves]
    experts, inner, columns = matrices[0].shape
    packed = Value("gate_up", (experts, inner, 2 * columns), matrices[0].item, Role.PARAMETER, Component.EXPERTS)
    graph.parameters[:] = [packed if value is matrices[0] else value for value in graph.parameters if value is not matrices[1]]
    rows, _, ends = halves[0].inputs
    made = halves[0].outputs[0]
    both = replace(made, name="gate_up", shape=(made.shape[0], 2 * columns))
    product = replace(halves[0], inputs=(rows, packed, ends), outputs=(both,), holds=(rows, packed, ends))
    inside = (both, *swiglu.inputs[2:])
    instead: dict[Node, list[Node]] = {
        halves[0]: [product],
        halves[1]: [],
        swiglu: [Node("packed_swiglu", swiglu.component, inside, swiglu.outputs, inside)],
    }
    graph.nodes[:] = [new for node in graph.nodes for new in instead.get(node, [node])]
