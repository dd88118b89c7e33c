"""What the program of a step consists of: stretches of the model, each a segment and a count, and the optimizer's."""

from dataclasses import dataclass
from typing import NamedTuple

from simulator.program.graph import Value
from simulator.program.operations import Operation
from simulator.program.rewrites.fsdp import Unit
from simulator.program.rewrites.pipeline import Action
from simulator.program.tape import Turn


class Pass(NamedTuple):
    """Operations of one micro-batch on a stretch."""

    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Segment:
    """Operations of one stretch of the model. ``kept``: values that live to the end of the step."""

    name: str
    parameters: tuple[Value, ...]
    """In the order in which the model lists them."""
    passes: dict[Turn, Pass]
    """What runs in a micro-batch; without sharding only the first differs."""
    kept: tuple[Value, ...]
    outputs: tuple[Value, ...]
    """What it hands on: rows, and the auxiliary losses of its layer."""
    biases: tuple[Value, ...]
    """Selection biases of the router, which the optimizer phase moves."""
    early_gradients: tuple[Value, ...]
    """Gradients of parameters that the forward pass made: activations until the first micro-batch is done."""
    arrivals: tuple[tuple[int, Value], ...]
    """Operations of the first backward pass with which the gradient of a parameter lies in a bucket."""
    units: tuple[Unit, ...] = ()
    """Units of sharded parameters in the order in which they are gathered."""


@dataclass(frozen=True)
class Stretch:
    """A segment, how often it stands in a row, and the numbers of its symbols."""

    segment: Segment
    count: int
    bindings: dict[str, float]


@dataclass(frozen=True)
class OptimizerStretch:
    """Operations of the optimizer phase, how often in a row, and the numbers of their symbols."""

    operations: tuple[Operation, ...]
    count: int
    bindings: dict[str, float]


@dataclass(frozen=True)
class Wire:
    """What a stage of a pipeline exchanges with its neighbours, rows of one micro-batch at a time: ``received`` and ``sent`` say so of each of its pieces.

    ``held``: what is sent is held until the end of the step. ``tied_bytes``: gradient of a table that lies on both ends, which they sum.
    """

    bytes: int
    received: tuple[bool, ...]
    sent: tuple[bool, ...]
    held: bool
    tied_bytes: int


@dataclass(frozen=True)
class Program:
    """One optimizer step of one rank: micro-batches forward and backward by ``actions``, a pass backward in reverse; then the optimizer."""

    stretches: tuple[Stretch, ...]
    pieces: tuple[range, ...]
    """Which stretches a pass goes through; without a pipeline all."""
    actions: tuple[Action, ...]
    optimizer: tuple[OptimizerStretch, ...]
    turns: tuple[Turn, ...]
    """The micro-batches."""
    wire: Wire | None
    buffer_elements: int
    """Elements of the rotary tables, cosines and sines together, and of the selection biases; fp32."""
