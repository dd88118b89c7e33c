"""Head and cross-entropy as one operation: no value of the size of all logits lies between them."""

from simulator.program.graph import Graph, Node


def fuse_cross_entropy(graph: Graph) -> None:
    """Rewrite the head in place: the linear layer before the cross-entropy and the cross-entropy become one node."""
    loss = next(node for node in graph.nodes if node.operation == "cross_entropy")
    logits, labels = loss.inputs
    linear = next(node for node in graph.nodes if logits in node.outputs)
    fused = Node("linear_cross_entropy", loss.component, (*linear.inputs, labels), loss.outputs)
    graph.nodes[:] = [fused if node is loss else node for node in graph.nodes if node is not linear]
