"""Stretches through torch.compile: one node of autograd's, few kernels, and what PyTorch's partitioner keeps.

The operations of a stretch and of its backward, as autograd's rules derive them, are made functional and seen as one graph. What backward reads of the
forward pass is kept if it cannot be computed again cheaply: results of matrix products, attention, sorts, scatters and opaque kernels, of reductions, and what
a kernel that nothing is fused into reads in backward. All else is computed again from what is kept. (``torch/_functorch/partitioners.py``,
``solve_min_cut``; its minimum cut decides between equals, or small things, beyond these rules.) Then ``fusion`` makes kernels of both halves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from simulator.components import Component, Kind, Phase, Role
from simulator.program.graph import Graph, ItemKind, Node, Shape, Value
from simulator.program.operations import Operation
from simulator.program.rewrites.fusion import fuse
from simulator.program.sizes import T, Y
from simulator.program.tape import PERSISTENT, Backward, Forward, Gradients, Lowering

RECOMPUTED = (Kind.POINTWISE, Kind.REDUCE, Kind.GATHER)
"""Kinds of operations that may run again in backward, unless they are opaque."""

FEW_EXPERTS = 7
"""Below ``unroll_reductions_threshold`` of ``torch/_inductor/config.py``."""

KEPT = ("cat", "clone")
"""Pointwise, and yet kept: what is put together, and copies of parts of a larger result, since the partitioner does not see that it is kept anyway."""

CONSTANTS = ("new_zeros", "zeros")
"""Made of nothing: equal ones are one value."""


@dataclass(frozen=True)
class CompiledNode(Node):
    """A stretch that is compiled as a whole."""

    inside: tuple[Node, ...] = field(kw_only=True)
    few_experts: bool = field(kw_only=True)
    """A token has few enough for sums over them to be written out."""


def join_projections(graph: Graph, rope: str) -> None:
    """Rewrite a block in place: queries, keys and values are the columns of one product, which are taken apart as they are turned, or before their norms."""
    linears = [node for node in graph.nodes if node.operation == "linear" and node.component is Component.QKV]
    turns = [node for node in graph.nodes if node.operation == "rope"]
    parts = tuple(node.outputs[0] for node in linears)
    together = Value("query_key_value", (T, Y), parts[0].item, component=Component.QKV)
    inputs = (linears[0].inputs[0], *(node.inputs[1] for node in linears))
    joined = Node("joined_linear", Component.QKV, inputs, (together,), inputs)
    if any(node.component is Component.QK_NORM for node in graph.nodes):
        _view(together, parts)
        instead = {linears[0]: [joined, Node("split", Component.QKV, (together,), parts)]}
    else:
        value = parts[-1]
        if rope == "eager":
            _view(together, (value,))
        given = (together, *turns[0].inputs[1:])
        packed = Node("packed_rope", Component.ROPE, given, (*(node.outputs[0] for node in turns), value), given)
        instead = {linears[0]: [joined], turns[0]: [packed], turns[1]: []}
    instead |= {node: [] for node in linears[1:]}
    graph.nodes[:] = [new for node in graph.nodes for new in instead.get(node, [node])]
    for node in [node for node in graph.nodes if node.component is Component.QK_NORM and node.inputs[0].shape[0] != T]:
        # Rows of one head each are no view of columns of the product.
        copy = Value(node.inputs[0].name, node.inputs[0].shape, node.inputs[0].item, component=Component.QK_NORM)
        position = next(index for index, other in enumerate(graph.nodes) if other is node)
        rows = Node("rows_of_heads", Component.QK_NORM, (node.inputs[0],), (copy,))
        graph.nodes[position : position + 1] = [rows, replace(node, inputs=(copy, *node.inputs[1:]), holds=())]


def _view(whole: Value, parts: Iterable[Value]) -> None:
    for part in parts:
        part.base, part.apart = whole, True


def compile_nodes(graph: Graph, nodes: Sequence[Node], *, few_experts: bool = True) -> None:
    """Put one compiled node in place of ``nodes``, which follow one another. Its outputs: those of the graph first, then what else is used later."""
    made = {value.storage for node in nodes for value in node.outputs}
    rest = [node for node in graph.nodes if not any(node is inner for inner in nodes)]
    inputs = _distinct(value if value.role in PERSISTENT else value.storage for node in nodes for value in node.inputs if value.storage not in made)
    later = {value.storage for node in rest for value in node.inputs}
    outputs = _distinct(value for value in (*graph.outputs, *graph.kept, *later) if value in made)
    compiled = CompiledNode("compiled", nodes[-1].component, inputs, outputs, inside=tuple(nodes), few_experts=few_experts)
    position = next(index for index, node in enumerate(graph.nodes) if node is nodes[0])
    graph.nodes[:] = [*rest[:position], compiled, *rest[position:]]


def _distinct(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(values))


def lower_compiled(table: Mapping[str, Lowering], tape: Forward, node: Node) -> None:
    """Write the kernels of a compiled stretch, and those of its backward as the rule of one autograd node."""
    assert isinstance(node, CompiledNode)
    inner, back = Forward(tape.turn), Backward(tape.turn)
    for step in node.inside:
        inner.lower(step, dict(table))
    differentiated = {value for step in inner.autograd for value in step.outputs}
    outputs = [value for value in node.outputs if value in differentiated]
    seeds = [Value(f"{value.name}.grad", value.shape, value.item, Role.TEMPORARY, value.component) for value in outputs]
    for value, seed in zip(outputs, seeds, strict=True):
        back.references[seed], back.gradients[value] = 2, seed
    back.run(inner.autograd, {})
    functional = _Functional()
    forward_half, backward_half = functional.of(inner.operations), functional.of(back.operations)
    wanted = {value: _renamed(gradient, functional.now) for value in node.inputs if (gradient := back.gradients.get(value)) is not None}
    kept = _kept(forward_half, backward_half)
    saves = {value: None for value in kept if value not in node.outputs}  # who has an output holds it anyway
    backward_half = [*_again(forward_half, backward_half, kept)]
    backward_half = _needed(backward_half, {gradient.storage for gradient in wanted.values()})
    first = fuse(_needed(forward_half, {*node.outputs, *kept}), {*node.outputs, *kept}, few_experts=node.few_experts)
    second = fuse(backward_half, {gradient.storage for gradient in wanted.values()}, few_experts=node.few_experts)
    for kernel in first:
        tape.operations.append(kernel)

    def rule(run: Backward, gradients: list[Value]) -> Gradients:
        return _emit(run, second, dict(zip(seeds, gradients, strict=True)), node.inputs, wanted, saves)

    tape.record(node.inputs, outputs, tuple(saves), rule, custom=True, releases=True)


class _Functional:
    """Operations with a value of its own for everything that is written; the last that is written to a storage keeps its name. Equal constants are one."""

    def __init__(self) -> None:
        self.now: dict[Value, Value] = {}
        """Storages to the values that stand for what they hold."""
        self.constants: dict[tuple[ItemKind, Shape], Value] = {}

    def of(self, operations: Sequence[Operation]) -> list[Operation]:
        """The next stretch of operations."""
        last = {value.storage: index for index, operation in enumerate(operations) for value in operation.writes}
        made: list[Operation] = []
        for index, operation in enumerate(operations):
            if not operation.reads and all(not value.elements.factor for value in operation.writes):
                continue  # an allocation
            if operation.name in CONSTANTS and self._known(operation.writes[0]):
                continue
            before = dict(self.now)
            for value in operation.writes:
                stays = last[value.storage] == index and operation.name not in CONSTANTS
                self.now[value.storage] = value.storage if stays else replace(value.storage, name=operation.name)
            if operation.name in CONSTANTS:
                self.constants[operation.writes[0].item, operation.writes[0].shape] = self.now[operation.writes[0].storage]
            reads, writes = (tuple(_renamed(value, values) for value in taken) for taken, values in ((operation.reads, before), (operation.writes, self.now)))
            after = dict(zip(operation.writes, writes, strict=True))
            traffic = tuple(after[value] if value in after else _renamed(value, before) for value in operation.traffic)
            made.append(replace(operation, reads=reads, writes=writes, traffic=traffic, allocates=[], frees=[], holds=()))
        return made

    def _known(self, constant: Value) -> bool:
        equal = self.constants.get((constant.item, constant.shape))
        if equal is not None:
            self.now[constant.storage] = equal
        return equal is not None


def _renamed(value: Value, renamed: Mapping[Value, Value]) -> Value:
    if value.base is None:
        return renamed.get(value, value)
    base = _renamed(value.base, renamed)
    return value if base is value.base else replace(value, base=base)


def _kept(forward: Sequence[Operation], backward: Sequence[Operation]) -> dict[Value, None]:
    """Storages that backward takes from the forward pass, parameters and buffers left out."""
    maker = {value.storage: operation for operation in forward for value in operation.writes}
    made_behind = {value.storage for operation in backward for value in operation.writes}
    materialised = {value.storage for operation in backward if not fusible(operation) for value in operation.reads}
    kept: dict[Value, None] = {}
    seen: set[Value] = set()
    waiting = [value.storage for operation in backward for value in operation.reads if value.storage not in made_behind]
    while waiting:
        storage = waiting.pop()
        if storage in seen or storage.role in PERSISTENT:
            continue
        seen.add(storage)
        operation = maker.get(storage)
        if operation is None:
            if storage.role is not Role.TEMPORARY:  # what comes in is kept as it is, a gradient is there anyway
                kept[storage] = None
        elif storage in materialised or not _cheap(operation):
            kept[storage] = None
        else:
            waiting += [value.storage for value in operation.reads]
    return kept


def fusible(operation: Operation) -> bool:
    """Whether a partitioner lets it run again, and expects it to be fused with its neighbours."""
    return operation.kind in RECOMPUTED and not operation.opaque


def _cheap(operation: Operation) -> bool:
    """Not a reduction: what that makes is small beside what it reads."""
    if not fusible(operation) or operation.name in KEPT:
        return False
    return operation.kind is not Kind.REDUCE or operation.writes[0].elements == operation.reads[0].elements


def _again(forward: Sequence[Operation], backward: Sequence[Operation], kept: Mapping[Value, None]) -> Iterable[Operation]:
    """Backward with what is computed again, onto values of its own, each just before its first use."""
    maker = {value.storage: operation for operation in forward for value in operation.writes}
    copies: dict[Value, Value] = {}

    def made_again(value: Value) -> Iterable[Operation]:
        storage = value.storage
        operation = maker.get(storage)
        if operation is None or storage in kept or storage in copies:
            return
        for read in operation.reads:
            yield from made_again(read)
        copies.update({written.storage: replace(written.storage, role=Role.TEMPORARY) for written in operation.writes})
        yield _on_copies(replace(operation, phase=Phase.BACKWARD), copies)

    for operation in backward:
        for value in operation.reads:
            yield from made_again(value)
        yield _on_copies(operation, copies)


def _on_copies(operation: Operation, copies: Mapping[Value, Value]) -> Operation:
    reads, writes, traffic = (tuple(_renamed(value, copies) for value in values) for values in (operation.reads, operation.writes, operation.traffic))
    return replace(operation, reads=reads, writes=writes, traffic=traffic)


def _needed(operations: Sequence[Operation], wanted: Iterable[Value]) -> list[Operation]:
    """Those that ``wanted`` storages hang on."""
    alive = set(wanted)
    found: list[Operation] = []
    for operation in reversed(operations):
        if any(value.storage in alive for value in operation.writes):
            alive |= {value.storage for value in operation.reads}
            found.append(operation)
    return found[::-1]


def _emit(
    back: Backward,
    kernels: Sequence[Operation],
    given: Mapping[Value, Value],
    inputs: Sequence[Value],
    wanted: Mapping[Value, Value],
    kept: Mapping[Value, None],
) -> Gradients:
    """Run the kernels of a backward half: everything ends after its last use, but the incoming gradients, which the caller holds."""
    leaving = {gradient.storage for gradient in wanted.values()}
    last = {value.storage: index for index, kernel in enumerate(kernels) for value in (*kernel.reads, *kernel.writes)}
    for index, kernel in enumerate(kernels):
        reads, traffic = (tuple(_renamed(value, given) for value in values) for values in (kernel.reads, kernel.traffic))
        with back.within(kernel.component):
            back.emit(
                kernel.name, kernel.kind, reads, kernel.writes,
                gemm=kernel.gemm, flops=kernel.flops, scores=kernel.scores, launches=kernel.launches, traffic=traffic, opaque=kernel.opaque,
            )  # fmt: skip
        for storage in {value.storage for value in (*kernel.reads, *kernel.writes)}:
            if last[storage] == index and storage not in leaving and storage not in given:
                back.drop(storage)
    for storage in kept:
        if storage not in last:
            back.drop(storage)
    return [None if (gradient := wanted.get(value)) is None else _renamed(gradient, given) for value in inputs]
