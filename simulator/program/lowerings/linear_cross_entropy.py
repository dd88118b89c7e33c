"""Head and cross-entropy as one; twins: ``trainer/kernels/cross_entropy.py`` and ``chunked_cross_entropy.py``."""

from collections.abc import Sequence
from functools import partial

from simulator.components import Component, Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation, cast, scalar
from simulator.program.operations import Gemm
from simulator.program.sizes import ONE, ZERO, D, R, T, V, X
from simulator.program.tape import Backward, Forward, Gradients, Lowering

FP32 = ItemKind.FP32
POINTWISE, REDUCE = Kind.POINTWISE, Kind.REDUCE


def lower_chunked(tape: Forward, node: Node) -> None:
    """Keeps the gradients of hidden states and weight, which backward scales in place.

    One chunk is written for all: its values have the size of a chunk, its operations run X times and move what all chunks move.
    """
    (x, weight, labels), (loss,) = node.inputs, node.outputs
    narrow = weight
    if weight.item != x.item:
        narrow = activation(tape, "weight.cast", weight.shape, x.item)
        tape.emit("_to_copy", POINTWISE, (weight,), (narrow,))
    grad_x, grad_weight = activation(tape, "x.grad", x.shape, x.item), activation(tape, "weight.grad", weight.shape, FP32)
    tape.emit("empty_like", POINTWISE, (), (grad_x.viewed((ZERO,)),))
    tape.emit("zeros_like", POINTWISE, (), (grad_weight,))
    tape.emit("zeros", POINTWISE, (), (loss,))
    place, share = activation(tape, "place", labels.shape, ItemKind.INT64), activation(tape, "share", labels.shape, FP32)
    tape.emit("clamp", POINTWISE, (labels,), (place,))
    _shares(tape, labels, share)
    _chunk(tape, x, narrow, place, share, loss, grad_x, grad_weight)
    if weight.item != FP32:
        summed, grad_weight = grad_weight, activation(tape, "weight.grad", weight.shape, weight.item)
        tape.emit("_to_copy", POINTWISE, (summed,), (grad_weight,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        for grad in (grad_x, grad_weight):
            back.emit("mul_", POINTWISE, (grad, *gradients), (grad,))
        return grad_x, grad_weight, None

    # What has a name lives until the loss returns.
    tape.operations[-1].holds += (place, share, narrow)
    tape.record((x, weight, labels), (loss,), (grad_x, grad_weight), rule)


def _shares(tape: Forward, labels: Value, share: Value) -> None:
    counted, count = activation(tape, "counted", labels.shape, ItemKind.BOOL), activation(tape, "count", (ONE,), ItemKind.INT64)
    tape.emit("ne", POINTWISE, (labels,), (counted,))
    tape.emit("_to_copy", POINTWISE, (counted,), (share,))
    tape.emit("sum", REDUCE, (counted,), (count,))
    tape.emit("clamp_", POINTWISE, (count,), (count,))
    tape.emit("div_", POINTWISE, (share, count), (share,)).holds += (counted,)


def _chunk(tape: Forward, x: Value, weight: Value, place: Value, share: Value, loss: Value, grad_x: Value, grad_weight: Value) -> None:
    def each(name: str, reads: Sequence[Value], writes: Sequence[Value], kind: Kind = POINTWISE, gemm: Gemm | None = None) -> None:
        tape.emit(name, kind, [_whole(value) for value in reads], [_whole(value) for value in writes], gemm=gemm, launches=X)

    def new(name: str, item: ItemKind) -> Value:
        return activation(tape, name, (R, V), item)

    logits = new("logits", x.item)
    each("mm", (x, weight), (logits,), Kind.GEMM, Gemm(T, V, D))
    given, logits = logits, logits if x.item == FP32 else new("wide", FP32)
    if logits is not given:
        each("_to_copy", (given,), (logits,))
    log_probability = new("log_probability", FP32)
    each("_log_softmax", (logits,), (log_probability,), REDUCE)
    chosen, part = activation(tape, "chosen", (R, ONE), FP32), scalar(tape, "part")
    tape.emit("gather", Kind.GATHER, (log_probability, place), (chosen,), launches=X, traffic=(place, place))
    each("mul_", (chosen, share), (chosen,))
    each("sum", (chosen,), (part,), REDUCE)
    each("exp_", (log_probability,), (log_probability,))
    minus_one = scalar(tape, "minus_one")
    each("new_full", (), (minus_one,))
    tape.emit("scatter_add_", Kind.SCATTER, (log_probability, place, minus_one), (log_probability,), launches=X, traffic=(place, place))
    each("mul_", (log_probability, share), (log_probability,))
    grad = log_probability if x.item == FP32 else new("logits.grad", x.item)
    if grad is not log_probability:
        each("_to_copy", (log_probability,), (grad,))
    each("mm", (grad, weight), (grad_x,), Kind.GEMM, Gemm(T, D, V))
    if x.item == FP32:
        each("addmm_", (grad, x), (grad_weight,), Kind.GEMM, Gemm(V, D, T))
    else:
        product = activation(tape, "product", grad_weight.shape, x.item)
        tape.emit("mm", Kind.GEMM, (_whole(grad), x), (product,), gemm=Gemm(V, D, T), launches=X)
        tape.emit("add_", POINTWISE, (grad_weight, product), (grad_weight,), launches=X)
    each("sub_", (loss, part), (loss,))


def _whole(value: Value) -> Value:
    """All chunks' part of a chunk's value, as a view that costs no bytes."""
    return value.viewed((T, *value.shape[1:])) if value.shape[0] == R else value


def lower_in_place(on_cpu: bool, tape: Forward, node: Node) -> None:
    """Keeps hidden states, weight, and the logits' gradient in the logits' place. One kernel on CUDA; a CPU has an fp32 copy of 16-bit logits for a while."""
    (x, given, labels), (loss,) = node.inputs, node.outputs
    tape.component = Component.HEAD
    weight = cast(tape, given, x.item)
    logits = activation(tape, "logits", (T, V), x.item)
    tape.emit("mm", Kind.GEMM, (x, weight), (logits,), gemm=Gemm(T, V, D))
    tape.component = Component.CROSS_ENTROPY
    share = scalar(tape, "share")
    differs, count = activation(tape, "differs", (T,), ItemKind.BOOL), activation(tape, "count", (ONE,), ItemKind.INT64)
    tape.emit("ne", POINTWISE, (labels,), (differs,))
    tape.emit("sum", REDUCE, (differs,), (count,))
    tape.emit("clamp_", POINTWISE, (count,), (count,))
    tape.emit("_to_copy", POINTWISE, (count,), (share,))
    tape.emit("reciprocal_", POINTWISE, (share,), (share,))
    losses = activation(tape, "losses", (T, ONE), FP32)
    if on_cpu:
        logits = _logits_gradient(tape, logits, labels, share, losses)
    else:
        tape.emit("cross_entropy_", REDUCE, (logits, labels, share), (losses, logits))
    tape.emit("sum", REDUCE, (losses,), (loss,))
    tape.emit("mul_", POINTWISE, (loss, share), (loss,)).holds += (losses,)

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        scale, scaled = gradients[0], back.new("scaled", x.shape, x.item)
        if x.item != FP32:
            scale = back.new("scale", (ONE,), x.item)
            back.emit("_to_copy", POINTWISE, gradients, (scale,))
        back.emit("mul", POINTWISE, (x, scale), (scaled,))
        grad_weight, grad_x = back.new("weight.grad", weight.shape, x.item), back.new("x.grad", x.shape, x.item)
        back.emit("mm", Kind.GEMM, (logits, scaled), (grad_weight,), gemm=Gemm(V, D, T))
        back.drop(scaled)
        back.emit("mm", Kind.GEMM, (logits, weight), (grad_x,), gemm=Gemm(T, D, V))
        back.emit("mul_", POINTWISE, (grad_x, scale), (grad_x,))
        return grad_x, grad_weight, None

    tape.component = Component.HEAD
    tape.record((x, weight, labels), (loss,), (x, weight, logits), rule, custom=True)


def _logits_gradient(tape: Forward, given: Value, labels: Value, share: Value, losses: Value) -> Value:
    """Losses and gradient in tensor operations, the gradient in fp32 and, but for 16-bit logits, where the logits are."""
    counted, place = activation(tape, "counted", (T,), ItemKind.BOOL), activation(tape, "place", (T,), ItemKind.INT64)
    tape.emit("ne", POINTWISE, (labels,), (counted,))
    tape.emit("clamp", POINTWISE, (labels,), (place,))
    wide = given
    if given.item != FP32:
        wide = activation(tape, "wide", given.shape, FP32)
        tape.emit("_to_copy", POINTWISE, (given,), (wide,))
    top, total, logarithm, factors = (activation(tape, name, (T, ONE), FP32) for name in ("top", "total", "logarithm", "factors"))
    tape.emit("amax", REDUCE, (wide,), (top,))
    tape.emit("sub_", POINTWISE, (wide, top), (wide,))
    tape.emit("gather", Kind.GATHER, (wide, place), (losses,), traffic=(place, place))
    tape.emit("neg_", POINTWISE, (losses,), (losses,))
    tape.emit("exp_", POINTWISE, (wide,), (wide,))
    tape.emit("sum", REDUCE, (wide,), (total,))
    tape.emit("log", POINTWISE, (total,), (logarithm,))
    tape.emit("add_", POINTWISE, (losses, logarithm), (losses,))
    tape.emit("mul", POINTWISE, (counted, share), (factors,))
    tape.emit("reciprocal_", POINTWISE, (total,), (total,))
    tape.emit("mul_", POINTWISE, (total, factors), (total,))
    tape.emit("mul_", POINTWISE, (wide, total), (wide,))
    tape.emit("neg_", POINTWISE, (factors,), (factors,))
    tape.emit("scatter_add_", Kind.SCATTER, (wide, place, factors), (wide,), traffic=(place, place))
    last = tape.emit("mul_", POINTWISE, (losses, counted), (losses,))
    gradient = wide
    if wide is not given:
        gradient = activation(tape, "logits.grad", given.shape, given.item)
        last = tape.emit("_to_copy", POINTWISE, (wide,), (gradient,))
    last.holds += (counted, place, total, factors, given)
    return gradient


def linear_cross_entropies(*, on_cpu: bool) -> dict[str, Lowering]:
    """By the name of the implementation."""
    return {"chunked": lower_chunked, "in-place": partial(lower_in_place, on_cpu)}
