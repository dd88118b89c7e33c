"""A layer as it is written: values and the nodes between them, before any plan, kernel or backward pass."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from simulator.components import Component, Role
from simulator.program.sizes import Size, product

Shape = tuple[Size, ...]


class ItemKind(StrEnum):
    """Element types. COMPUTE and MASTER stand for what the plan's precision makes of them."""

    COMPUTE = "compute"
    MASTER = "master"
    FP32 = "fp32"
    BF16 = "bf16"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"


ITEM_BYTES = {ItemKind.FP32: 4, ItemKind.BF16: 2, ItemKind.INT32: 4, ItemKind.INT64: 8, ItemKind.BOOL: 1}

PRECISIONS = {
    "fp32": {ItemKind.COMPUTE: ItemKind.FP32, ItemKind.MASTER: ItemKind.FP32},
    "bf16-mixed": {ItemKind.COMPUTE: ItemKind.BF16, ItemKind.MASTER: ItemKind.FP32},
    "bf16-split": {ItemKind.COMPUTE: ItemKind.BF16, ItemKind.MASTER: ItemKind.BF16},
    "bf16": {ItemKind.COMPUTE: ItemKind.BF16, ItemKind.MASTER: ItemKind.BF16},
}
"""What a plan's precision computes in, and what it keeps parameters and states in."""


@dataclass(eq=False, repr=False)
class Value:
    """One storage, or a view of one (``base``), which has no bytes of its own.

    ``item``: element type; ``role``: what it is kept as; ``apart``: a view that gets a gradient of its own, as the parts of a split tensor do.
    """

    name: str
    shape: Shape
    item: ItemKind
    role: Role = Role.ACTIVATION
    component: Component = Component.INPUTS
    base: "Value | None" = None
    apart: bool = False

    @property
    def differentiated(self) -> "Value":
        """The value whose gradient is this one's."""
        return self if self.base is None or self.apart else self.base.differentiated

    @property
    def storage(self) -> "Value":
        """The value whose bytes these are."""
        return self if self.base is None else self.base.storage

    @property
    def elements(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @property
    def bytes(self) -> Size:
        """Bytes of its elements."""
        return self.elements * ITEM_BYTES[self.item]

    def viewed(self, shape: Shape) -> "Value":
        """The same bytes under another shape."""
        return replace(self, shape=shape, base=self, apart=False)

    def part(self, name: str, shape: Shape) -> "Value":
        """Some of the bytes, under a shape of their own; what splits and joins parts is a node of autograd's."""
        return replace(self, name=name, shape=shape, base=self, apart=True)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Node:
    """One step of a layer: ``operation`` says which lowering makes real operations of it.

    ``holds``: what has a name until the step is done, whether its last operation reads it or not.
    """

    operation: str
    component: Component
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    holds: tuple[Value, ...] = ()


@dataclass
class Graph:
    """A stretch of the forward pass that takes ``inputs`` and leaves ``outputs``.

    ``kept``: outputs that live on to the end of the step (what is logged).
    """

    name: str
    nodes: list[Node] = field(default_factory=list)
    parameters: list[Value] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    kept: list[Value] = field(default_factory=list)

    def parameter(self, name: str, shape: Shape, component: Component) -> Value:
        """Declare a parameter."""
        value = Value(name, shape, ItemKind.MASTER, Role.PARAMETER, component)
        self.parameters.append(value)
        return value

    def input(self, name: str, shape: Shape, item: ItemKind, role: Role = Role.ACTIVATION) -> Value:
        """Declare a value that an earlier stretch made."""
        value = Value(name, shape, item, role)
        self.inputs.append(value)
        return value

    def add(
        self,
        operation: str,
        component: Component,
        inputs: tuple[Value, ...],
        *outputs: tuple[str, Shape, ItemKind],
        holds: tuple[Value, ...] = (),
        releases: tuple[Value, ...] = (),
    ) -> tuple[Value, ...]:
        """Append a node; its outputs are given as (name, shape, element type). It holds its inputs but those that it ``releases`` early."""
        made = tuple(Value(name, shape, item, component=component) for name, shape, item in outputs)
        self.nodes.append(Node(operation, component, inputs, made, (*(value for value in inputs if value not in releases), *holds)))
        return made

    def hold(self, *values: Value) -> None:
        """Let the last node hold further values."""
        self.nodes[-1] = replace(self.nodes[-1], holds=(*self.nodes[-1].holds, *values))

    def values(self) -> "set[Value]":
        """Every value that the graph names, bases of views included."""
        found = {*self.parameters, *self.inputs}
        for node in self.nodes:
            for value in (*node.inputs, *node.outputs):
                view: Value | None = value
                while view is not None:
                    found.add(view)
                    view = view.base
        return found

    def resolve(self, precision: str) -> None:
        """Replace COMPUTE and MASTER by what ``precision`` says."""
        items = PRECISIONS[precision]
        for value in self.values():
            value.item = items.get(value.item, value.item)
