"""Routers and their two auxiliary losses; the trainer's twin is ``trainer/model/router.py``."""

from simulator.components import Kind
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation, cast, linear, mean, scalar, scale
from simulator.program.operations import Gemm
from simulator.program.sizes import ONE, E
from simulator.program.tape import Backward, Forward, Gradients

POINTWISE, REDUCE = Kind.POINTWISE, Kind.REDUCE
FP32, INT64 = ItemKind.FP32, ItemKind.INT64


def lower_logits(tape: Forward, node: Node) -> None:
    """Logits in fp32."""
    (x, weight), (logits,) = node.inputs, node.outputs
    linear(tape, cast(tape, x, FP32), cast(tape, weight, FP32), logits)


def lower_narrow_logits(tape: Forward, node: Node) -> None:
    """Logits in fp32 of factors in the compute type, which are kept as they are."""
    (x, given), (logits,) = node.inputs, node.outputs
    weight = cast(tape, given, x.item)
    rows, inner, columns = x.shape[0], x.shape[1], logits.shape[1]
    tape.emit("mm", Kind.GEMM, (x, weight), (logits,), gemm=Gemm(rows, columns, inner))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        if x.item != FP32:
            narrow = back.new("logits.grad", logits.shape, x.item)
            back.emit("_to_copy", POINTWISE, (grad,), (narrow,))
            grad = narrow
        grad_x = back.new("x.grad", x.shape, x.item)
        back.emit("mm", Kind.GEMM, (grad, weight), (grad_x,), gemm=Gemm(rows, inner, columns))
        grad_weight = back.new("weight.grad", weight.shape, x.item)
        back.emit("mm", Kind.GEMM, (grad, x), (grad_weight,), gemm=Gemm(columns, inner, rows))
        return grad_x, grad_weight

    tape.record((x, weight), (logits,), (x, weight), rule)


ROUTER_LOWERINGS = {"fp32": lower_logits, "narrow": lower_narrow_logits}


def lower_softmax(tape: Forward, node: Node) -> None:
    """Softmax; keeps its result."""
    (x,), (out,) = node.inputs, node.outputs
    tape.emit("_softmax", REDUCE, (x,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("logits.grad", x.shape, x.item)
        back.emit("_softmax_backward_data", REDUCE, (*gradients, out), (grad,))
        return (grad,)

    tape.record((x,), (out,), (out,), rule)


def lower_sigmoid(tape: Forward, node: Node) -> None:
    """Sigmoid of each logit; keeps its result."""
    (x,), (out,) = node.inputs, node.outputs
    tape.emit("sigmoid", POINTWISE, (x,), (out,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("logits.grad", x.shape, x.item)
        back.emit("sigmoid_backward", POINTWISE, (*gradients, out), (grad,))
        return (grad,)

    tape.record((x,), (out,), (out,), rule)


def lower_take_turns(tape: Forward, node: Node) -> None:
    """Numbers of the experts in turn."""
    tape.emit("arange", POINTWISE, (), node.outputs)
    tape.emit("remainder_", POINTWISE, node.outputs, node.outputs)


def lower_biased_topk(tape: Forward, node: Node) -> None:
    """Places of the k largest sums of score and bias; nothing here has a gradient."""
    (scores, bias), (experts,) = node.inputs, node.outputs
    biased = activation(tape, "biased", scores.shape, FP32)
    tape.emit("add", POINTWISE, (scores, bias), (biased,))
    tape.emit("topk", Kind.SORT, (biased,), (activation(tape, "values", experts.shape, FP32), experts))


def lower_gather_scores(tape: Forward, node: Node) -> None:
    """The scores at given places; keeps both."""
    (x, places), (values,) = node.inputs, node.outputs
    tape.emit("gather", Kind.GATHER, (x, places), (values,), traffic=(values, values, places))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        zeros = back.new("zeros", x.shape, x.item)
        back.emit("new_zeros", POINTWISE, (), (zeros,))
        grad = back.new("x.grad", x.shape, x.item)
        back.emit("scatter_add", Kind.SCATTER, (zeros, places, *gradients), (grad,))
        return grad, None

    tape.record((x, places), (values,), (x, places), rule)


def lower_scale_weights(tape: Forward, node: Node) -> None:
    """Weights times a number."""
    scale(tape, node.inputs[0], node.outputs[0])


def lower_topk(tape: Forward, node: Node) -> None:
    """The k largest; keeps their places."""
    (x,), (values, places) = node.inputs, node.outputs
    tape.emit("topk", Kind.SORT, (x,), (values, places))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        zeros = back.new("zeros", x.shape, x.item)
        back.emit("new_zeros", POINTWISE, (), (zeros,))
        grad = back.new("x.grad", x.shape, x.item)
        back.emit("scatter", Kind.SCATTER, (zeros, places, *gradients), (grad,))
        return (grad,)

    tape.record((x,), (values,), (places,), rule)


def lower_normalise(tape: Forward, node: Node) -> None:
    """Divide each row by its sum; keeps values and sum."""
    _normalise(tape, node, guarded=False)


def lower_normalise_guarded(tape: Forward, node: Node) -> None:
    """The same, with a small number added to the sum in place."""
    _normalise(tape, node, guarded=True)


def _normalise(tape: Forward, node: Node, *, guarded: bool) -> None:
    (values,), (weights,) = node.inputs, node.outputs
    total = activation(tape, "sum", (values.shape[0], ONE), FP32)
    tape.emit("sum", REDUCE, (values,), (total,))
    if guarded:
        tape.emit("add_", POINTWISE, (total,), (total,))
    tape.record((values,), (total,), (), lambda back, gradients: (gradients[0].viewed(values.shape),))
    tape.emit("div", POINTWISE, (values, total), (weights,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        (grad,) = gradients
        shape = values.shape
        quotient, twice, negative, product = (back.new(name, shape, FP32) for name in ("quotient", "quotient", "negative", "product"))
        back.emit("div", POINTWISE, (values, total), (quotient,))
        back.emit("div", POINTWISE, (quotient, total), (twice,))
        back.emit("neg", POINTWISE, (grad,), (negative,))
        back.emit("mul", POINTWISE, (negative, twice), (product,))
        for done in (quotient, twice, negative):
            back.drop(done)
        grad_values = back.new("values.grad", shape, FP32)
        back.emit("div", POINTWISE, (grad, total), (grad_values,))
        grad_total = back.new("sum.grad", total.shape, FP32)
        back.emit("sum", REDUCE, (product,), (grad_total,))
        return grad_values, grad_total

    tape.record((values, total), (weights,), (values, total), rule)


def lower_count(tape: Forward, node: Node) -> None:
    """Tokens of each expert."""
    tape.emit("bincount", REDUCE, node.inputs, node.outputs)


def lower_load_balancing(tape: Forward, node: Node) -> None:
    """E times the dot product of shares and mean probabilities; keeps the shares."""
    (probability, counts), (loss,) = node.inputs, node.outputs
    total = activation(tape, "total", (ONE,), INT64)
    tape.emit("sum", REDUCE, (counts,), (total,))
    share = activation(tape, "share", (E,), FP32)
    tape.emit("div", POINTWISE, (counts, total), (share,))
    average = activation(tape, "average", (E,), FP32)
    mean(tape, probability, average)
    dot = scalar(tape, "dot")
    tape.emit("dot", REDUCE, (share, average), (dot,))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("average.grad", (E,), FP32)
        back.emit("mul", POINTWISE, (*gradients, share), (grad,))
        return (grad,)

    tape.record((average,), (dot,), (share,), rule)
    scale(tape, dot, loss)
    # The probabilities have a name until the loss returns.
    tape.operations[-1].holds += (probability,)


def lower_router_z(tape: Forward, node: Node) -> None:
    """Mean square of the log of the softmax's denominator; keeps logits and logs."""
    (logits,), (loss,) = node.inputs, node.outputs
    rows = (logits.shape[0],)
    lse = activation(tape, "log_sum_exp", rows, FP32)
    tape.emit("logsumexp", REDUCE, (logits,), (lse,))

    def lse_rule(back: Backward, gradients: list[Value]) -> Gradients:
        steps = [back.new(name, logits.shape, FP32) for name in ("difference", "exponential", "logits.grad")]
        for name, value in zip(("sub", "exp", "mul"), steps, strict=True):
            back.emit(name, POINTWISE, (logits, *gradients), (value,))
        return (steps[-1],)

    tape.record((logits,), (lse,), (logits, lse), lse_rule)
    square = activation(tape, "square", rows, FP32)
    tape.emit("pow", POINTWISE, (lse,), (square,))

    def square_rule(back: Backward, gradients: list[Value]) -> Gradients:
        steps = [back.new(name, rows, FP32) for name in ("power", "twice", "lse.grad")]
        for name, value in zip(("pow", "mul", "mul"), steps, strict=True):
            back.emit(name, POINTWISE, (lse, *gradients), (value,))
        return (steps[-1],)

    tape.record((lse,), (square,), (lse,), square_rule)
    mean(tape, square, loss)
