"""Embedding, cross-entropy and the sum of the losses; twin: ``trainer/model/transformer.py``."""

from simulator.components import Kind, Role
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.lowerings.basic import activation, cast, mean, scalar, scale
from simulator.program.tape import Backward, Forward, Gradients

FP32 = ItemKind.FP32
POINTWISE, REDUCE = Kind.POINTWISE, Kind.REDUCE


def lower_embedding(tape: Forward, node: Node) -> None:
    """Rows of the table, then the cast to the compute type; the gradient is a table of zeros with rows added."""
    (tokens, table), (out,) = node.inputs, node.outputs
    rows = out if out.item == table.item else activation(tape, "rows", out.shape, table.item)
    tape.emit("embedding", Kind.GATHER, (table, tokens), (rows,), traffic=(rows, rows, tokens))

    def rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new(f"{table.name}.grad", table.shape, table.item)
        back.emit("embedding_dense_backward", Kind.SCATTER, (*gradients, tokens), (grad,))
        return (grad,)

    tape.record((table,), (rows,), (tokens,), rule)
    if rows is not out:
        tape.emit("_to_copy", POINTWISE, (rows,), (out,))

        def cast_rule(back: Backward, gradients: list[Value]) -> Gradients:
            grad = back.new("rows.grad", rows.shape, rows.item)
            back.emit("_to_copy", POINTWISE, gradients, (grad,))
            return (grad,)

        tape.record((rows,), (out,), (), cast_rule)


def lower_cross_entropy(tape: Forward, node: Node) -> None:
    """Log-softmax of fp32 logits, kept whole, and the mean of the labels' entries; backward makes two more of its size."""
    (given, labels), (loss,) = node.inputs, node.outputs
    logits = cast(tape, given, FP32)
    log_probability = activation(tape, "log_probability", logits.shape, FP32)
    tape.emit("_log_softmax", REDUCE, (logits,), (log_probability,))

    def softmax_rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("logits.grad", logits.shape, FP32)
        back.emit("_log_softmax_backward_data", REDUCE, (*gradients, log_probability), (grad,))
        return (grad,)

    tape.record((logits,), (log_probability,), (log_probability,), softmax_rule)
    total_weight = scalar(tape, "total_weight")
    tape.emit("nll_loss_forward", REDUCE, (labels,), (loss, total_weight))

    def nll_rule(back: Backward, gradients: list[Value]) -> Gradients:
        grad = back.new("log_probability.grad", logits.shape, FP32)
        back.emit("nll_loss_backward", POINTWISE, (*gradients, labels), (grad,))
        return (grad,)

    tape.record((log_probability,), (loss,), (log_probability, labels, total_weight), nll_rule)


def lower_total_loss(tape: Forward, node: Node) -> None:
    """language-model loss + coefficient * mean of the layers' losses, for each auxiliary loss; over the micro-batches.

    Outputs: the total, then the means, which are logged.
    """
    (language_model, *layer_losses), (total, *averages) = node.inputs, node.outputs
    running = language_model
    for losses, average in zip(layer_losses, averages, strict=True):
        mean(tape, _stacked(tape, losses), average)
        scaled = scalar(tape, "scaled")
        scale(tape, average, scaled)
        following = scalar(tape, "sum")
        tape.emit("add", POINTWISE, (running, scaled), (following,))
        tape.record((running, scaled), (following,), (), lambda back, gradients: (gradients[0], gradients[0]))
        running = following
    scale(tape, running, total, "div")


def _stacked(tape: Forward, losses: Value) -> Value:
    out = Value("stacked", losses.shape, FP32, Role.ACTIVATION, tape.component)
    tape.emit("stack", POINTWISE, (losses,), (out,))
    tape.record((losses,), (out,), (), lambda back, gradients: (gradients[0],))
    return out
