"""Dense SwiGLU feed-forward, its norm before and its addition to the residual stream after."""

from simulator.components import Component
from simulator.program.graph import Graph, ItemKind, Value
from simulator.program.sizes import D, F, Size, T

COMPUTE = ItemKind.COMPUTE


def dense(graph: Graph, x: Value) -> Value:
    """x + down(silu(gate(n)) * up(n)) for n = norm(x); x is (T, D)."""
    norm = graph.parameter("feed_forward_norm", (D,), Component.FEED_FORWARD_NORM)
    (normalised,) = graph.add("norm", Component.FEED_FORWARD_NORM, (x, norm), ("normalised", (T, D), COMPUTE))
    out = feed_forward(graph, normalised, F, Component.DENSE_FEED_FORWARD)
    (x,) = graph.add("add", Component.DENSE_FEED_FORWARD, (x, out), ("x", (T, D), COMPUTE))
    return x


def feed_forward(graph: Graph, x: Value, width: Size, component: Component, prefix: str = "") -> Value:
    """down(silu(gate(x)) * up(x)) of a hidden ``width``; parameters of ``component``, their names begin with ``prefix``."""
    gate, up = (graph.parameter(f"{prefix}{name}", (width, D), component) for name in ("gate", "up"))
    down = graph.parameter(f"{prefix}down", (D, width), component)
    gated, upped = (graph.add("linear", component, (x, weight), (weight.name, (T, width), COMPUTE))[0] for weight in (gate, up))
    (hidden,) = graph.add("swiglu", Component.ACTIVATION, (gated, upped), ("hidden", (T, width), COMPUTE))
    (out,) = graph.add("linear", component, (hidden, down), ("out", (T, D), COMPUTE), holds=(x,))
    return out
