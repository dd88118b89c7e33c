"""Grouped-query attention with rotary positions, its norm before and its addition to the residual stream after."""

from simulator.components import Component, Role
from simulator.program.graph import Graph, ItemKind, Value
from simulator.program.sizes import B, C, D, G, H, J, S, T
from simulator.specs import GroupedQueryAttention

COMPUTE = ItemKind.COMPUTE


def attention(graph: Graph, x: Value, spec: GroupedQueryAttention) -> Value:
    """x + output(softmax(q k^T / sqrt(C)) v); x is (T, D)."""
    cosine, sine = (graph.input(name, (S, J), ItemKind.FP32, Role.BUFFER) for name in ("cosine", "sine"))
    norm = graph.parameter("attention_norm", (D,), Component.ATTENTION_NORM)
    projections = {name: graph.parameter(name, (heads * C, D), Component.QKV) for name, heads in (("query", H), ("key", G), ("value", G))}
    output = graph.parameter("output", (D, H * C), Component.ATTENTION_OUTPUT)
    (normalised,) = graph.add("norm", Component.ATTENTION_NORM, (x, norm), ("normalised", (T, D), COMPUTE))
    projected = {
        name: graph.add("linear", Component.QKV, (normalised, weight), (name, (T, weight.shape[0]), COMPUTE))[0] for name, weight in projections.items()
    }
    if spec.qk_norm != "none":
        for name, heads in (("query", H), ("key", G)):
            shape = (T * heads, C) if spec.qk_norm == "head" else (T, heads * C)
            weight = graph.parameter(f"{name}_norm", (shape[1],), Component.QK_NORM)
            (projected[name],) = graph.add("norm", Component.QK_NORM, (projected[name].viewed(shape), weight), (name, shape, COMPUTE))
    for name, heads in (("query", H), ("key", G)):
        by_head = projected[name].viewed((B, S, heads, C))
        (projected[name],) = graph.add("rope", Component.ROPE, (by_head, cosine, sine), (name, (B, S, heads, C), COMPUTE))
    value = projected["value"].viewed((B, S, G, C))
    (mixed,) = graph.add("attention", Component.ATTENTION, (projected["query"], projected["key"], value), ("mixed", (B, S, H, C), COMPUTE))
    (out,) = graph.add("linear", Component.ATTENTION_OUTPUT, (mixed.viewed((T, H * C)), output), ("out", (T, D), COMPUTE), holds=(normalised,))
    (x,) = graph.add("add", Component.ATTENTION_OUTPUT, (x, out), ("x", (T, D), COMPUTE))
    return x
