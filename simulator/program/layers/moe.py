"""Top-k mixture of SwiGLU experts, its norm before and its addition to the residual stream after."""

from simulator.components import Component, Role
from simulator.program.graph import Graph, ItemKind, Shape, Value
from simulator.program.layers.dense import feed_forward
from simulator.program.sizes import ONE, D, E, F, K, M, T, W
from simulator.specs import MoeFeedForward

COMPUTE, FP32, INT64 = ItemKind.COMPUTE, ItemKind.FP32, ItemKind.INT64


def moe(graph: Graph, x: Value, spec: MoeFeedForward, *, load_balancing: bool, router_z: bool, uniform: bool) -> tuple[Value, list[Value]]:
    """x + the weighted sum of the experts of each token; x is (T, D). Returns it and the auxiliary losses.

    ``uniform``: experts take turns, whatever the scores are.
    """
    norm = graph.parameter("feed_forward_norm", (D,), Component.FEED_FORWARD_NORM)
    router = graph.parameter("router", (E, D), Component.ROUTER)
    gate, up = (graph.parameter(name, (E, D, F), Component.EXPERTS) for name in ("gate", "up"))
    down = graph.parameter("down", (E, F, D), Component.EXPERTS)

    (normalised,) = graph.add("norm", Component.FEED_FORWARD_NORM, (x, norm), ("normalised", (T, D), COMPUTE))
    (logits,) = graph.add("router_logits", Component.ROUTER, (normalised, router), ("logits", (T, E), FP32))
    (scores,) = graph.add(spec.router, Component.ROUTER, (logits,), ("scores", (T, E), FP32))
    bias = graph.input("selection_bias", (E,), FP32, Role.BUFFER) if spec.selection_bias else None
    weights, experts = _chosen(graph, scores, bias, uniform=uniform)
    if spec.normalise_weights:
        guarded = spec.router == "sigmoid" or uniform or spec.selection_bias
        (weights,) = graph.add("normalise_guarded" if guarded else "normalise", Component.ROUTER, (weights,), ("weights", (T, K), FP32))
    if spec.weight_scale != 1:
        (weights,) = graph.add("scale_weights", Component.ROUTER, (weights,), ("weights", (T, K), FP32))
    (counts,) = graph.add("count", Component.ROUTER, (experts,), ("counts", (E,), INT64))
    graph.kept.append(counts)
    losses: list[Value] = []
    if load_balancing:
        probability = scores
        if spec.router == "sigmoid":
            (probability,) = graph.add("normalise_guarded", Component.AUXILIARY_LOSSES, (scores,), ("probability", (T, E), FP32))
        losses += graph.add("load_balancing_loss", Component.AUXILIARY_LOSSES, (probability, counts), ("load_balancing", (ONE,), FP32))
    if router_z:
        losses += graph.add("router_z_loss", Component.AUXILIARY_LOSSES, (logits,), ("router_z", (ONE,), FP32))

    graph.hold(scores, *([logits] if router_z else []))
    slot, token, ends, row_weights = _ordered(graph, experts, counts, weights, spec)
    count = slot.shape[0]
    (rows,) = graph.add("permute", Component.PERMUTATION, (normalised, token), ("rows", (count, D), COMPUTE))
    gated, upped = (graph.add("experts_linear", Component.EXPERTS, (rows, weight, ends), (weight.name, (count, F), COMPUTE))[0] for weight in (gate, up))
    (hidden,) = graph.add("swiglu", Component.ACTIVATION, (gated, upped, row_weights), ("hidden", (count, F), COMPUTE))
    (returned,) = graph.add("experts_linear", Component.EXPERTS, (hidden, down, ends), ("returned", (count, D), COMPUTE), holds=(rows,))
    (out,) = graph.add("combine", Component.COMBINE, (returned, token), ("out", (T, D), COMPUTE), holds=(normalised, slot, ends, row_weights))
    if spec.shared_width:
        shared = feed_forward(graph, normalised, W, Component.SHARED_EXPERTS, "shared_")
        (out,) = graph.add("add", Component.SHARED_EXPERTS, (out, shared), ("out", (T, D), COMPUTE), holds=(normalised,))
    (x,) = graph.add("add", Component.COMBINE, (x, out), ("x", (T, D), COMPUTE))
    return x, losses


def _chosen(graph: Graph, scores: Value, bias: Value | None, *, uniform: bool) -> tuple[Value, Value]:
    """Scores and numbers of the experts of each token."""
    weights, experts = ("weights", (T, K), FP32), ("experts", (T, K), INT64)
    if uniform:
        (chosen,) = graph.add("take_turns", Component.ROUTER, (), experts)
    elif bias is not None:
        (chosen,) = graph.add("biased_topk", Component.ROUTER, (scores, bias), experts)
    else:
        first, second = graph.add("topk", Component.ROUTER, (scores,), weights, experts)
        return first, second
    (weight,) = graph.add("gather_scores", Component.ROUTER, (scores, chosen), weights)
    return weight, chosen


def _ordered(graph: Graph, experts: Value, counts: Value, weights: Value, spec: MoeFeedForward) -> tuple[Value, Value, Value, Value]:
    """Rows in the order of their experts: choice and token of each, where each expert's end, and the weight of each."""
    rows = T * K if spec.capacity_factor is None else E * M
    listed: list[tuple[str, Shape, ItemKind]] = [("slot", (rows,), INT64), ("token", (rows,), INT64), ("ends", (E,), ItemKind.INT32)]
    operation = "order"
    if spec.capacity_factor is not None:
        operation = "order_with_capacity"
        listed.append(("empty", (rows, ONE), ItemKind.BOOL))
    slot, token, ends, *empty = graph.add(operation, Component.PERMUTATION, (experts, counts), *listed)
    flat = weights.viewed((T * K, ONE))
    (row_weights,) = graph.add("permute", Component.PERMUTATION, (flat, slot), ("row_weights", (rows, ONE), FP32))
    if empty:
        (row_weights,) = graph.add("mask", Component.PERMUTATION, (row_weights, *empty), ("row_weights", (rows, ONE), FP32))
    graph.hold(experts)
    return slot, token, ends, row_weights
