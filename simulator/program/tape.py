"""Forward and backward tapes: lowerings write operations on them, and autograd's rules of lifetime turn them into bytes.

Forward: a storage ends after its last reader, unless backward needs it. Backward: nodes run in the reverse of their making; a
node's saved storages and incoming gradients end with it; a value with n readers gets n - 1 additions, each into a new storage;
a parameter's first gradient is taken over as it is, later ones are added in place.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from simulator.components import Component, Kind, Phase, Role
from simulator.program.graph import Graph, ItemKind, Node, Shape, Value
from simulator.program.operations import Exchange, Gemm, Operation, Stream
from simulator.program.sizes import ONE, Size

PERSISTENT = (Role.PARAMETER, Role.BUFFER, Role.OPTIMIZER_STATE, Role.INPUT, Role.COMMUNICATION)
"""Roles of storages that autograd's rules neither begin nor end."""

Gradients = Sequence["Value | None"]
Rule = Callable[["Backward", list[Value]], Gradients]
"""Emits the backward operations of one node: gets the gradients of its outputs, returns those of its inputs in order."""


class Turn(NamedTuple):
    """Which micro-batch of a step: whether the first, whether the last."""

    first: bool
    last: bool


ONLY = Turn(first=True, last=True)


class Tape:
    """Collects operations of one phase."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.component = Component.INPUTS
        self.operations: list[Operation] = []

    def new(self, name: str, shape: Shape, item: ItemKind = ItemKind.COMPUTE, role: Role = Role.TEMPORARY) -> Value:
        """A storage of the running component, allocated by the operation that first writes it."""
        return Value(name, shape, item, role, self.component)

    @contextmanager
    def within(self, component: Component) -> Iterator[None]:
        """Context: operations inside belong to ``component``."""
        outer, self.component = self.component, component
        yield
        self.component = outer

    def emit(
        self,
        name: str,
        kind: Kind,
        reads: Sequence[Value],
        writes: Sequence[Value],
        *,
        gemm: Gemm | None = None,
        flops: Size | None = None,
        scores: Size | None = None,
        exchange: Exchange | None = None,
        launches: Size = ONE,
        calls: int = 0,
        hooks: int = 0,
        traffic: Sequence[Value] | None = None,
        stream: Stream = Stream.COMPUTE,
        after: Stream | None = None,
        opaque: bool = False,
    ) -> Operation:
        """Append one operation; FLOPs of matrix products follow from their dimensions, ``traffic`` from what is read and written."""
        if gemm is not None:
            flops = 2 * gemm.rows * gemm.columns * gemm.inner
        operation = Operation(
            name, kind, self.phase, self.component, tuple(reads), tuple(writes),
            flops=flops, scores=scores, gemm=gemm, exchange=exchange, launches=launches, calls=calls, hooks=hooks,
            traffic=tuple((*reads, *writes) if traffic is None else traffic), stream=stream, after=after, opaque=opaque,
        )  # fmt: skip
        self.operations.append(operation)
        return operation


@dataclass(frozen=True)
class AutogradNode:
    """A forward operation as autograd sees it. ``inputs``: those that may want a gradient. ``stop``: operations until all of ``saves`` are kept.

    ``releases``: its rule lets go of what it saved, each after its last use.
    ``inside``: comes before the gradient that the node after it made is added to others.
    """

    component: Component
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    saves: tuple[Value, ...]
    rule: Rule
    stop: int
    releases: bool = False
    inside: bool = False


@dataclass(frozen=True, eq=False)
class Recomputation:
    """What backward runs before the first node of a stretch that kept nothing; ``copies``: the stretch's values to those of its second run.

    ``inputs``: what the stretch took from outside and kept.
    """

    operations: tuple[Operation, ...]
    copies: dict[Value, Value]
    inputs: tuple[Value, ...]


class Forward(Tape):
    """The forward tape of one graph."""

    def __init__(self, turn: Turn = ONLY, *, again: bool = False) -> None:
        """``again``: the second run of a stretch, in backward."""
        super().__init__(Phase.FORWARD)
        self.turn, self.again = turn, again
        self.autograd: list[AutogradNode] = []
        self.starts: list[int] = []
        """Of each node of the graph, how many autograd nodes were there before it."""

    def record(
        self, inputs: Sequence[Value], outputs: Sequence[Value], saves: Sequence[Value], rule: Rule, *, custom: bool = False, releases: bool = False
    ) -> None:
        """Register what the last operations mean to autograd.

        A builtin operation keeps its inputs before it runs and its outputs afterwards, a ``custom`` function everything afterwards.
        """
        before = not custom and not {value.storage for value in saves} & {value.storage for value in outputs}
        self.autograd.append(AutogradNode(self.component, tuple(inputs), tuple(outputs), tuple(saves), rule, len(self.operations) - before, releases))

    def hook(self, act: "Callable[[Backward], None]", *, inside: bool = False) -> None:
        """Let backward ``act`` when it comes to this place; ``inside``: before the next node's gradient of its input is added to those of other readers."""

        def rule(back: "Backward", gradients: list[Value]) -> Gradients:
            act(back)
            return ()

        self.autograd.append(AutogradNode(self.component, (), (), (), rule, len(self.operations), inside=inside))

    def lower(self, node: Node, table: "dict[str, Lowering]") -> None:
        """Write the operations of ``node``."""
        self.component = node.component
        self.starts.append(len(self.autograd))
        table[node.operation](self, node)
        if node.holds:
            self.operations[-1].holds += node.holds

    def finish(self, graph: Graph, saved: frozenset[Value]) -> None:
        """Give every storage its beginning and its end; ``saved``: what backward keeps."""
        staying = saved | {value.storage for value in (*graph.outputs, *graph.kept)}
        # The caller holds what it passed until the stretch returns: to a block, or to the norm that the head begins with.
        returned = max(index for index, step in enumerate(self.operations) if graph.name != "head" or step.component is Component.FINAL_NORM)
        last: dict[Value, int] = {value.storage: returned for value in graph.inputs if value.storage.role is Role.ACTIVATION}
        external = set(last)
        begun: set[Value] = set(external)
        for index, operation in enumerate(self.operations):
            for value in operation.writes:
                if value.storage not in begun and value.storage.role not in PERSISTENT:
                    begun.add(value.storage)
                    operation.allocates.append(value.storage)
            for value in (*operation.reads, *operation.writes, *operation.holds):
                if value.storage in begun and value.storage not in external:
                    last[value.storage] = index
        for storage, index in last.items():
            if storage not in staying:
                self.operations[index].frees.append(storage)


@dataclass
class Backward(Tape):
    """The backward tape of one graph. But for the first ``turn`` gradients of an earlier micro-batch are there already.

    ``bucketed``: parameters whose gradients go into buckets, where others accumulate too; ``arrivals``: the operations that put them there.
    ``early_gradients``: those that the forward pass made. ``taken``: gradients of gathered parameters, for the reduce-scatter.
    """

    turn: Turn = ONLY
    bucketed: frozenset[Value] = frozenset()
    arrivals: list[tuple[int, Value]] = field(default_factory=list)
    taken: dict[Value, Value] = field(default_factory=dict)
    references: dict[Value, int] = field(default_factory=dict)
    gradients: dict[Value, Value] = field(default_factory=dict)
    early_gradients: list[Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(Phase.BACKWARD)
        self._made: list[Value] = []
        self._unpacked: tuple[Value, ...] = ()

    def emit(self, name: str, kind: Kind, reads: Sequence[Value], writes: Sequence[Value], **details: object) -> Operation:
        """Append one operation; storages written for the first time begin with it."""
        operation = super().emit(name, kind, reads, writes, **details)  # type: ignore[arg-type]
        for value in writes:
            storage = value.storage
            if storage not in self.references and storage.role not in PERSISTENT:
                operation.allocates.append(storage)
                self.references[storage] = 1
                self._made.append(storage)
        return operation

    def drop(self, value: Value) -> None:
        """Let go of one reference; the last one frees the storage."""
        storage = value.storage
        if storage.role in PERSISTENT or storage not in self.references:
            return
        self.references[storage] -= 1
        if self.references[storage] == 0:
            del self.references[storage]
            self.operations[-1].frees.append(storage)
        if storage in self._made:
            self._made.remove(storage)

    def applied(self) -> None:
        """The node's own function is done; what follows, sums over broadcast dimensions, is the engine's.

        Then what a second run made for the node is gone, while a first run's savings wait for the node's end.
        """
        for value in self._unpacked:
            self.drop(value)
        self._unpacked = ()

    def run(self, nodes: Sequence[AutogradNode], uses: dict[Value, int], recomputations: Sequence[tuple[range, Recomputation]] = ()) -> None:
        """Emit the backward of ``nodes``. ``uses``: how many gradients each parameter waits for before it takes them.

        ``recomputations``: ranges of ``nodes`` that belong to the second run of a stretch.
        """
        for node in nodes:
            for value in node.saves:
                if value.storage.role not in PERSISTENT:
                    self.references[value.storage] = self.references.get(value.storage, 0) + 1
        waiting = dict(uses)
        stretch_of = {index: recomputation for span, recomputation in recomputations for index in span}
        pending = [recomputation for _, recomputation in recomputations]
        late: list[tuple[Component, Value, Value]] = []
        for index, node in reversed(list(enumerate(nodes))):
            recomputation = stretch_of.get(index)
            if recomputation is not None:
                for value, copy in recomputation.copies.items():
                    if value in self.gradients:
                        self.gradients[copy] = self.gradients.pop(value)
            incoming = [self.gradients.pop(value.differentiated, None) for value in node.outputs]
            present = [gradient for gradient in incoming if gradient is not None]
            if node.outputs and not present:
                for value in node.saves:
                    self.drop(value)
                continue
            if recomputation in pending and node.saves:
                assert recomputation is not None
                pending.remove(recomputation)
                self.operations += [
                    replace(operation, allocates=list(operation.allocates), frees=list(operation.frees)) for operation in recomputation.operations
                ]
            self.component = node.component
            self._made = []
            again = set() if recomputation is None else {value.storage for value in node.saves} - set(recomputation.inputs)
            self._unpacked = tuple(value for value in node.saves if value.storage in again)
            outgoing = list(node.rule(self, present))
            self.applied()
            for gradient in outgoing:
                if gradient is not None:
                    self.references[gradient.storage] = self.references.get(gradient.storage, 0) + 1
            for storage in list(self._made):
                self.drop(storage)
            for value in (*present, *(value for value in node.saves if value.storage not in again and not node.releases)):
                self.drop(value)
            before_hook = index > 0 and nodes[index - 1].inside
            for value, gradient in zip(node.inputs, outgoing, strict=True):
                if gradient is not None and before_hook and value.differentiated not in waiting:
                    late.append((node.component, value.differentiated, gradient))
                elif gradient is not None:
                    self._accumulate(value.differentiated, gradient, waiting)
            if node.inside:
                for self.component, target, gradient in late:
                    self._accumulate(target, gradient, waiting)
                late = []

    def _accumulate(self, target: Value, gradient: Value, waiting: dict[Value, int]) -> None:
        earlier = self.gradients.get(target)
        if earlier is not None:
            total = self.new(f"{target.name}.grad", earlier.shape, earlier.item)
            self.emit("add", Kind.POINTWISE, (earlier, gradient), (total,))
            self._made.remove(total)
            self.drop(earlier)
            self.drop(gradient)
            gradient = total
        self.gradients[target] = gradient
        if target in waiting:
            waiting[target] -= 1
            if waiting[target] == 0:
                self._take(target, self.gradients.pop(target))

    def _take(self, parameter: Value, gradient: Value) -> None:
        """What autograd's AccumulateGrad does."""
        if parameter.role is Role.COMMUNICATION:
            self.taken[parameter] = gradient
        elif not self.turn.first:
            kept = Value(f"{parameter.name}.grad", parameter.shape, parameter.item, Role.GRADIENT, parameter.component)
            self.references[kept] = 1
            self.emit("add_", Kind.POINTWISE, (kept, gradient), (kept,))
            self.drop(gradient)
        elif parameter in self.bucketed:
            with self.within(Component.GRADIENT_SYNC):
                self.emit("copy_", Kind.POINTWISE, (gradient,), (), traffic=(gradient, gradient))
            self.arrivals.append((len(self.operations) - 1, parameter))
            self.drop(gradient)
        elif gradient.storage.role is Role.ACTIVATION:
            self.early_gradients.append(gradient.storage)
        else:
            gradient.storage.role = Role.GRADIENT
            gradient.storage.component = parameter.component


Lowering = Callable[[Forward, Node], None]
"""Writes the operations of one node and tells autograd about them."""
