"""StepReport: memory and time of one steady training step of one rank, predicted or measured under the same names."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from simulator.components import Component, Phase, Role

Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Record(BaseModel):
    """Base of records: unknown fields are refused, values may not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)


class PeakPoint(Record):
    """Where in the step the most bytes are allocated: the operation whose outputs raise them to the peak."""

    phase: Phase
    component: Component
    operation: str


class TimelinePoint(Record):
    """Bytes allocated at most while one component runs in one phase, in order of execution."""

    phase: Phase
    component: Component
    bytes: Bytes


class ComponentBytes(Record):
    """Bytes that one component owns. Activations: storages it created that are alive after the last forward."""

    component: Component
    parameters_bytes: Bytes = 0
    gradients_bytes: Bytes = 0
    optimizer_bytes: Bytes = 0
    activations_bytes: Bytes = 0


class Memory(Record):
    """Bytes of one rank, each storage counted once.

    ``activations_bytes``: alive after the last forward, before its backward, beyond parameters, buffers, gradients, states and
    inputs. ``optimizer_bytes`` includes the step counters. ``at_peak`` gives every category at the instant of the peak; they
    add up to ``peak_allocated_bytes``. ``peak_reserved_bytes``: what the allocator took from the device, where it tells.
    """

    parameters_bytes: Bytes
    buffers_bytes: Bytes
    gradients_bytes: Bytes
    optimizer_bytes: Bytes
    inputs_bytes: Bytes
    activations_bytes: Bytes
    peak_allocated_bytes: Bytes
    peak_reserved_bytes: Bytes | None = None
    peak_at: PeakPoint
    at_peak: dict[Role, Bytes]
    components: list[ComponentBytes]
    timeline: list[TimelinePoint]


class ComponentTime(Record):
    """Seconds of one component in one phase, with the work that it did."""

    component: Component
    phase: Phase
    time_s: Seconds
    flops: Number = 0.0
    traffic_bytes: Number = 0.0
    operations: Annotated[int, Field(ge=0)] = 0


class Time(Record):
    """Seconds of one step. The six parts are disjoint and add up to ``step_s``; so do the rows and the same rest.

    ``exposed_communication_s``: time in which the rank waits for the network and computes nothing. ``bubble_s``: in which a stage of a
    pipeline waits for others. ``other_s``: what is none of the others: data loading and the host between phases.
    """

    step_s: Seconds
    forward_s: Seconds
    backward_s: Seconds
    optimizer_s: Seconds
    exposed_communication_s: Seconds
    bubble_s: Seconds = 0.0
    other_s: Seconds
    communication_s: Seconds
    rows: list[ComponentTime]
    repeats_s: list[Seconds] = []


class CommunicationRow(Record):
    """One collective of the step: all its calls together. ``waiting_s``: the part of ``exposed_s`` until the slowest rank comes, where it was measured."""

    name: str
    component: Component
    collective: str
    ranks: int
    calls: int
    bytes_per_call: Number
    time_s: Seconds
    exposed_s: Seconds
    waiting_s: Seconds = 0.0
    latency_s: Seconds
    bottleneck: str


class LayerLoad(Record):
    """How the choices of one step spread over the experts of one decoder block.

    ``counts``: tokens that chose each expert; ``dropped``: how many of them found no row; ``max_over_mean``: the busiest over the mean.
    """

    layer: int
    counts: list[int]
    dropped: int
    dead_experts: int
    max_over_mean: Number

    @classmethod
    def of(cls, layer: int, counts: list[int], dropped: int) -> "LayerLoad":
        """The row of a layer with these counts."""
        busiest = max(counts) * len(counts) / sum(counts)
        return cls(layer=layer, counts=counts, dropped=dropped, dead_experts=counts.count(0), max_over_mean=busiest)


class Throughput(Record):
    """``tokens_per_s`` of the whole job. ``model_flops``: forward FLOPs of all ranks times three, active parameters, half of the
    causal scores, no recomputation; ``mfu`` divides them by time and by the peak of all devices for the compute dtype."""

    tokens_per_s: Number
    model_flops: Number
    mfu: Number | None


class RankPlace(Record):
    """Where one rank of a measured job ran. ``device_uuid`` and ``memory_bytes``: of a GPU."""

    rank: Annotated[int, Field(ge=0)]
    host: str
    device: str
    device_name: str
    device_uuid: str | None = None
    memory_bytes: Bytes | None = None


class Provenance(Record):
    """What made the report: the program, its versions, the machine and the command.

    ``yardstick_flops_per_s``: rate of a reference matrix product between the measured steps, which a note names. ``settings``: variables of the
    environment that change how ranks talk (NCCL's above all), how kernels are launched or how memory is cut, where they are set.
    """

    tool: str
    device: str
    machine: str = ""
    versions: dict[str, str] = {}
    command: str = ""
    threads: int | None = None
    memory_source: str = ""
    time_source: str = ""
    yardstick_flops_per_s: Number | None = None
    settings: dict[str, str] = {}
    placement: list[RankPlace] = []
    notes: list[str] = []


class RankReport(Record):
    """One rank of a measured job, or one for all ranks of a stage of a predicted pipeline."""

    rank: Annotated[int, Field(ge=0)]
    memory: Memory
    time: Time
    communication: list[CommunicationRow] = []


class DefaultUsed(Record):
    """A value that nobody gave, and why it was taken."""

    field: str
    value: str
    reason: str


class StepReport(Record):
    """The ledger of one steady step (the third or later; gradients are freed after it) of one rank.

    ``model_specification``, ``plan`` and, of a predicted model with experts, ``load_specification`` hold every field of those specifications, so
    that a report can be predicted again. ``ranks``: all of a measured job, or the first of every stage of a predicted pipeline; ``memory`` is then
    that of the rank with the highest peak, ``time`` and ``communication`` those of the slowest.
    """

    schema_version: Literal[1] = 1
    kind: Literal["predicted", "measured"]
    model: str
    parameters: Annotated[int, Field(ge=0)]
    active_parameters: Annotated[int, Field(ge=0)]
    model_specification: dict[str, object]
    plan: dict[str, object]
    load_specification: dict[str, object] | None = None
    fabric: str
    memory: Memory
    time: Time
    throughput: Throughput
    communication: list[CommunicationRow] = []
    ranks: list[RankReport] = []
    bottleneck: str = ""
    bottleneck_link: str | None = None
    fits: bool | None = None
    device_memory_bytes: Bytes | None = None
    layer_loads: list[LayerLoad] = []
    """As measured, one row a MoE layer."""
    defaults: list[DefaultUsed] = []
    provenance: Provenance
