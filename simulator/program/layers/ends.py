"""The first and the last stretch of the model: embedding; final norm, head and losses."""

from simulator.components import Component, Role
from simulator.program.graph import Graph, ItemKind, Value
from simulator.program.sizes import ONE, D, N, T, V

COMPUTE, FP32, INT64 = ItemKind.COMPUTE, ItemKind.FP32, ItemKind.INT64


def embedding(graph: Graph) -> tuple[Value, Value]:
    """Rows of the table for the tokens: (T, D), and the table (V, D)."""
    tokens = graph.input("tokens", (T,), INT64, Role.INPUT)
    table = graph.parameter("embedding", (V, D), Component.EMBEDDING)
    (x,) = graph.add("embedding", Component.EMBEDDING, (tokens, table), ("x", (T, D), COMPUTE))
    return x, table


def head(graph: Graph, x: Value, tied: Value | None, auxiliary_losses: tuple[str, ...]) -> Value:
    """Final norm, logits, cross-entropy, and the total with the auxiliary losses of all layers: a scalar.

    ``tied``: the embedding's table, where it is the head as well.
    """
    labels = graph.input("labels", (T,), INT64, Role.INPUT)
    gathered = [graph.input(name, (N,), FP32) for name in auxiliary_losses]
    for losses in gathered:
        losses.component = Component.AUXILIARY_LOSSES
    norm = graph.parameter("final_norm", (D,), Component.FINAL_NORM)
    weight = tied if tied is not None else graph.parameter("head", (V, D), Component.HEAD)
    (normalised,) = graph.add("norm", Component.FINAL_NORM, (x, norm), ("normalised", (T, D), COMPUTE))
    (logits,) = graph.add("linear", Component.HEAD, (normalised, weight), ("logits", (T, V), COMPUTE))
    (loss,) = graph.add("cross_entropy", Component.CROSS_ENTROPY, (logits, labels), ("language_model", (ONE,), FP32), releases=(logits,))
    total, *averages = graph.add(
        "total_loss", Component.TOTAL_LOSS, (loss, *gathered), ("total", (ONE,), FP32), *((f"mean_{name}", (ONE,), FP32) for name in auxiliary_losses)
    )
    graph.kept += [loss, *averages]
    return total
