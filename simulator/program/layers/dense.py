"""Dense SwiGLU feed-forward, its norm before and its addition to the residual stream after."""

from simulator.components import Component
from simulator.program.graph import Graph, ItemKind, Value
from simulator.program.sizes import D, F, T

COMPUTE = ItemKind.COMPUTE


def dense(graph: Graph, x: Value) -> Value:
    """x + down(silu(gate(n)) * up(n)) for n = norm(x); x is (T, D)."""
    norm = graph.parameter("feed_forward_norm", (D,), Component.FEED_FORWARD_NORM)
    gate, up = (graph.parameter(name, (F, D), Component.DENSE_FEED_FORWARD) for name in ("gate", "up"))
    down = graph.parameter("down", (D, F), Component.DENSE_FEED_FORWARD)
    (normalised,) = graph.add("norm", Component.FEED_FORWARD_NORM, (x, norm), ("normalised", (T, D), COMPUTE))
    gated, upped = (graph.add("linear", Component.DENSE_FEED_FORWARD, (normalised, weight), (weight.name, (T, F), COMPUTE))[0] for weight in (gate, up))
    (hidden,) = graph.add("swiglu", Component.ACTIVATION, (gated, upped), ("hidden", (T, F), COMPUTE))
    (out,) = graph.add("linear", Component.DENSE_FEED_FORWARD, (hidden, down), ("out", (T, D), COMPUTE))
    (x,) = graph.add("add", Component.DENSE_FEED_FORWARD, (x, out), ("x", (T, D), COMPUTE))
    return x
