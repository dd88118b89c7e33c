"""What a rank really executes: operations on storages, in order, with what each allocates and frees."""

from dataclasses import dataclass, field
from enum import StrEnum

from simulator.components import Component, Kind, Phase
from simulator.program.graph import Value
from simulator.program.sizes import ONE, Size, Total


@dataclass(frozen=True)
class Gemm:
    """Dimensions of a matrix product: ``groups`` times (rows × inner) (inner × columns); rows are all groups' together."""

    rows: Size
    columns: Size
    inner: Size
    groups: Size = ONE


class Stream(StrEnum):
    """What runs beside what: kernels, all-gathers of parameters, and reduce-scatters of gradients."""

    COMPUTE = "compute"
    GATHER = "gather"
    REDUCE = "reduce"


class Toward(StrEnum):
    """Where an exchange takes its rows: to all ranks alike, or to the ranks of the experts and back home, which the ExpertLoad makes uneven."""

    ALL = "all"
    EXPERTS = "experts"
    HOME = "home"


@dataclass(frozen=True)
class Exchange:
    """A collective: which group of ranks, and the bytes as ``fabrics.cost`` defines them for the collective; of uneven rows those of a rank's own tokens."""

    collective: str
    group: str
    bytes: Size | Total
    toward: Toward = Toward.ALL


@dataclass(eq=False, repr=False)
class Operation:
    """``launches`` calls of one kernel.

    ``allocates``/``frees``: storages that begin with it and that end after it. ``traffic``: what moves between memory and chip.
    ``holds``: storages that live as long as this though it does not read them.
    """

    name: str
    kind: Kind
    phase: Phase
    component: Component
    reads: tuple[Value, ...] = ()
    writes: tuple[Value, ...] = ()
    allocates: list[Value] = field(default_factory=list)
    frees: list[Value] = field(default_factory=list)
    flops: Size | None = None
    scores: Size | None = None
    """Queries times keys of attention; the causal mask leaves half of them."""
    gemm: Gemm | None = None
    exchange: Exchange | None = None
    launches: Size = ONE
    traffic: tuple[Value, ...] = ()
    stream: Stream = Stream.COMPUTE
    after: Stream | None = None
    """A stream whose work so far it waits for."""
    calls: int = 0
    """Calls that the host makes for it beside its launches, each as long as one: allocations and views of hooks."""
    hooks: int = 0
    """Hooks of ``fully_shard`` that the host goes through for it, beside all these calls."""
    holds: tuple[Value, ...] = ()
    opaque: bool = False
    """A compiler takes it as it is: kernels of its own that nothing is fused into."""
