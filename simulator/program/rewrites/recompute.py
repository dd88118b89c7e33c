"""Recomputation: a stretch of a block keeps its inputs alone; backward runs it again before it needs what it made.

As PyTorch's non-reentrant checkpoint does: the second run stops as soon as the last tensor that backward wants is there, what it made is let go of
node by node, and the inputs when the stretch's backward is done. (Chen et al. 2016, arXiv 1604.06174)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.components import Component, Phase, Role
from simulator.program.graph import Graph, Node, Value
from simulator.program.operations import Operation
from simulator.program.rewrites.fsdp import UnitNode
from simulator.program.tape import PERSISTENT, AutogradNode, Forward, Lowering, Recomputation


@dataclass(frozen=True)
class Recomputed:
    """Stretches of the autograd nodes with what runs before them, and the storages that the first run leaves for backward."""

    spans: tuple[tuple[range, Recomputation], ...]
    saved: frozenset[Value]


def stretches(graph: Graph, recomputation: str | tuple[str, ...]) -> list[slice]:
    """Which nodes of a block are run again."""
    if graph.name != "block" or recomputation == "none":
        return []
    if recomputation == "full":
        return [slice(0, len(graph.nodes))]
    residual = next(index for index, node in enumerate(graph.nodes) if node.operation == "add" and node.component is Component.ATTENTION_OUTPUT)
    parts = {"attention": slice(0, residual), "feed_forward": slice(residual + 1, len(graph.nodes) - 1), "experts": _experts(graph)}
    return [part for name, part in parts.items() if name in recomputation and part is not None]


def _experts(graph: Graph) -> slice | None:
    """From the permuted rows to what the experts return, wherever they are; None in a dense block."""
    permuted = [index for index, node in enumerate(graph.nodes) if node.operation in ("permute", "gather_permute")]
    returned = [index for index, node in enumerate(graph.nodes) if node.operation in ("experts_linear", "exchange", "sum_slices")]
    end = returned[-1] + 1 if returned else 0
    if graph.nodes[end : end + 1] and graph.nodes[end].operation == "reshard":
        end += 1
    return slice(permuted[-1], end) if permuted else None


def recompute(graph: Graph, forward: Forward, recomputation: str | tuple[str, ...], table: dict[str, Lowering]) -> Recomputed:
    """Put second runs in place of stretches of the autograd nodes of ``forward``, which is the whole of ``graph``."""
    spans: list[tuple[range, Recomputation]] = []
    saving = dict(enumerate(forward.autograd))
    saved: list[Value] = []
    for part in stretches(graph, recomputation):
        span = range(forward.starts[part.start], forward.starts[part.stop] if part.stop < len(graph.nodes) else len(forward.autograd))
        for index, step in enumerate(graph.nodes[part], part.start):
            if isinstance(step, UnitNode) and step.operation == "reshard":
                step.unit.recomputed = any(later.saves for later in forward.autograd[forward.starts[index] + 1 : span.stop])
        again = _run_again(graph.nodes[part], table)
        for index, node in zip(span, again.nodes, strict=True):
            forward.autograd[index] = node
            del saving[index]
        saved += again.recomputation.inputs
        spans.append((span, again.recomputation))
    saved += [value for node in saving.values() for value in node.saves]
    return Recomputed(tuple(spans), frozenset(value.storage for value in saved))


@dataclass(frozen=True)
class _Again:
    """The second run of a stretch and its autograd nodes in place of the first run's."""

    recomputation: Recomputation
    nodes: tuple[AutogradNode, ...]


def _run_again(nodes: Sequence[Node], table: dict[str, Lowering]) -> _Again:
    """Lower ``nodes`` once more, onto values of their own."""
    made = {value for node in nodes for value in node.outputs}
    copies: dict[Value, Value] = {}

    def copy(value: Value) -> Value:
        if value.base is not None:
            base = copy(value.base)
            return value if base is value.base else replace(value, base=base)
        if value not in made:
            return value
        if value not in copies:
            copies[value] = replace(value)
        return copies[value]

    tape = Forward(again=True)
    for node in nodes:
        tape.lower(replace(node, inputs=tuple(map(copy, node.inputs)), outputs=tuple(map(copy, node.outputs)), holds=tuple(map(copy, node.holds))), table)
    outside = {value.storage: value.storage for node in nodes for value in (*node.inputs, *node.holds) if value.storage not in made}
    inputs = tuple(value for value in outside if value.role not in PERSISTENT)
    saving = [index for index, node in enumerate(tape.autograd) if node.saves]
    operations = _bounded(tape.operations[: tape.autograd[saving[-1]].stop], tape, set(inputs))
    first = tape.autograd[saving[0]]
    tape.autograd[saving[0]] = replace(first, saves=(*first.saves, *inputs))
    return _Again(Recomputation(tuple(operations), copies, inputs), tuple(tape.autograd))


def _bounded(run: Sequence[Operation], tape: Forward, inputs: set[Value]) -> list[Operation]:
    """The operations that do run, with the beginnings and ends of what they make: what has a later reader lives until the run stops."""
    saved = {value.storage for node in tape.autograd for value in node.saves}
    last: dict[Value, int] = {}
    for index, operation in enumerate(tape.operations):
        for value in (*operation.reads, *operation.writes, *operation.holds):
            last[value.storage] = min(index, len(run) - 1)
    bounded = [replace(operation, phase=Phase.BACKWARD, allocates=_gathered(operation.allocates), frees=_gathered(operation.frees)) for operation in run]
    begun: set[Value] = set()
    for operation in bounded:
        for value in operation.writes:
            storage = value.storage
            if storage not in begun and storage not in inputs and storage.role not in PERSISTENT:
                storage.role = Role.TEMPORARY
                begun.add(storage)
                operation.allocates.append(storage)
    for storage in begun - saved:
        bounded[last[storage]].frees.append(storage)
    return bounded


def _gathered(values: Sequence[Value]) -> list[Value]:
    """Of what begins or ends, the parameters that are gathered: autograd has no hand in them."""
    return [value for value in values if value.role is Role.COMMUNICATION]
