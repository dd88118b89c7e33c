"""The memory pass: a steady step under the storage tracker.

Tracking slows a step about threefold, so time is taken in another pass.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import _disable_current_modes

from simulator.components import Component, Phase, Role
from simulator.records.step_report import ComponentBytes, Memory, PeakPoint, TimelinePoint
from trainer.measure.scope import tracking
from trainer.measure.storages import StorageTracker
from trainer.measure.subject import Subject
from trainer.model import MoETransformer
from trainer.step import MicroBatch, StepLosses

WARM_UP_STEPS = 2
"""The optimizer makes its states in the first step; the third and all later ones are alike."""

CPU_SOURCE = "storages tracked at dispatch"
CUDA_SOURCE = "peak: the CUDA allocator (what no storage accounts for counts as temporaries); categories and components: storages tracked at dispatch"

OWNERS = {
    "embedding": Component.EMBEDDING,
    "attention_norm": Component.ATTENTION_NORM,
    "attention.query": Component.QKV,
    "attention.key": Component.QKV,
    "attention.value": Component.QKV,
    "attention.query_norm": Component.QK_NORM,
    "attention.key_norm": Component.QK_NORM,
    "attention.output": Component.ATTENTION_OUTPUT,
    "feed_forward_norm": Component.FEED_FORWARD_NORM,
    "feed_forward.router": Component.ROUTER,
    "feed_forward.experts.gate": Component.EXPERTS,
    "feed_forward.experts.up": Component.EXPERTS,
    "feed_forward.experts.gate_up": Component.EXPERTS,
    "feed_forward.experts.down": Component.EXPERTS,
    "feed_forward.shared.gate": Component.SHARED_EXPERTS,
    "feed_forward.shared.up": Component.SHARED_EXPERTS,
    "feed_forward.shared.down": Component.SHARED_EXPERTS,
    "feed_forward.gate": Component.DENSE_FEED_FORWARD,
    "feed_forward.up": Component.DENSE_FEED_FORWARD,
    "feed_forward.down": Component.DENSE_FEED_FORWARD,
    "final_norm": Component.FINAL_NORM,
    "head": Component.HEAD,
}
"""Module within the model or within a block to the component that uses its parameters; a tied head is the embedding's."""


@dataclass(frozen=True)
class MemoryPass:
    """What one tracked step tells. ``operations``: dispatched ones of each phase and component, views left out."""

    memory: Memory
    operations: Counter[tuple[Phase, Component]]
    source: str
    before_bytes: int
    """Alive before the step: parameters, buffers and states."""
    losses: StepLosses


def measure_memory(subject: Subject) -> MemoryPass:
    """Warm up, then track one step."""
    for _ in range(WARM_UP_STEPS):
        subject.step()
    gc.collect()
    ledger = _Ledger(subject.model)
    ledger.register(subject)
    before_bytes = ledger.tracker.live_bytes
    with tracking(ledger.observe), ledger.tracker:
        losses = subject.step(ledger.registered(subject.micro_batches))
    memory = ledger.memory()
    if subject.device == "cuda":
        memory = _with_allocator(subject, memory)
    return MemoryPass(memory, ledger.tracker.operations, CUDA_SOURCE if subject.device == "cuda" else CPU_SOURCE, before_bytes, losses)


def _owner(name: str) -> Component:
    inner = name.split(".", 2)[2] if name.startswith("blocks.") else name
    return OWNERS[inner.removesuffix(".weight")]


@dataclass
class _Ledger:
    """The bytes of a step, taken at the instants that the report is about."""

    model: MoETransformer
    tracker: StorageTracker = field(default_factory=StorageTracker)
    owned: dict[Role, Counter[Component]] = field(default_factory=dict)
    buffers_bytes: int = 0
    inputs_bytes: int = 0
    pipelined: bool = False
    """Of a pipeline the first pass backward counts, when as many micro-batches are in flight as ever."""

    def register(self, subject: Subject) -> None:
        """Count what is there before the step."""
        for name, parameter in self.model.named_parameters():
            self.tracker.register(parameter, Role.PARAMETER, _owner(name))
            for state in subject.optimizer.state[parameter].values():
                self.tracker.register(state, Role.OPTIMIZER_STATE, _owner(name))
        for buffer in self.model.buffers():
            self.tracker.register(buffer, Role.BUFFER, Component.ROPE)
        if subject.parallel.pipeline is not None:
            self.pipelined = True
            for waiting in subject.parallel.pipeline.receive_buffers():
                self.tracker.register(waiting, Role.COMMUNICATION, Component.INPUTS)
        for role in (Role.PARAMETER, Role.OPTIMIZER_STATE):
            self.owned[role] = self.tracker.bytes_by_component(role)
        self.buffers_bytes = self.tracker.bytes_by_component(Role.BUFFER).total()

    def registered(self, micro_batches: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
        """Micro-batches that are counted as inputs; none is held here once it is handed on."""
        while True:
            yield self._input(micro_batches)

    def _input(self, micro_batches: Iterator[MicroBatch]) -> MicroBatch:
        with _disable_current_modes():
            batch = next(micro_batches)
        for tensor in batch:
            self.tracker.register(tensor, Role.INPUT, Component.INPUTS)
        return batch

    def observe(self, phase: Phase, component: Component) -> None:
        """Follow the step; look at what is alive where forward ends and where the optimizer begins."""
        if phase is not self.tracker.phase:
            if phase is Phase.BACKWARD and not (self.pipelined and Role.ACTIVATION in self.owned):
                self.owned[Role.ACTIVATION] = self.tracker.bytes_by_component(Role.ACTIVATION)
                self.inputs_bytes = self.tracker.bytes_by_component(Role.INPUT).total()
            if phase is not Phase.BACKWARD:
                self._take_gradients()
            if phase is Phase.OPTIMIZER:
                self.owned[Role.GRADIENT] = self.tracker.bytes_by_component(Role.GRADIENT)
        self.tracker.observe(phase, component)

    def _take_gradients(self) -> None:
        """A gradient is one once it lies in ``.grad``: looked at after every backward pass."""
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                self.tracker.relabel(parameter.grad, Role.GRADIENT, _owner(name))

    def memory(self) -> Memory:
        """The memory part of the report."""
        peak = self.tracker.peak
        at_peak = dict.fromkeys(Role, 0)
        for storage in self.tracker.at_peak:
            at_peak[storage.role] += storage.bytes
        parameters, gradients, states, activations = (
            self.owned.get(role, Counter()) for role in (Role.PARAMETER, Role.GRADIENT, Role.OPTIMIZER_STATE, Role.ACTIVATION)
        )
        return Memory(
            parameters_bytes=parameters.total(),
            buffers_bytes=self.buffers_bytes,
            gradients_bytes=gradients.total(),
            optimizer_bytes=states.total(),
            inputs_bytes=self.inputs_bytes,
            activations_bytes=activations.total(),
            peak_allocated_bytes=peak.live_bytes,
            peak_at=PeakPoint(phase=peak.phase, component=peak.component, operation=peak.operation),
            at_peak=at_peak,
            components=[
                ComponentBytes(
                    component=component,
                    parameters_bytes=parameters[component],
                    gradients_bytes=gradients[component],
                    optimizer_bytes=states[component],
                    activations_bytes=activations[component],
                )
                for component in Component
                if parameters[component] or activations[component]
            ],
            timeline=[
                TimelinePoint(phase=stretch.phase, component=stretch.component, bytes=stretch.live_bytes)
                for stretch in self.tracker.stretches
                if stretch.component is not Component.INPUTS
            ],
        )


def _with_allocator(subject: Subject, tracked: Memory) -> Memory:
    """Take the peaks from the allocator, over one more step without the tracker."""
    # What the tracked step left in the allocator's pools is given back; the first step after that fills them anew.
    torch.cuda.empty_cache()
    subject.step()
    torch.cuda.reset_peak_memory_stats()
    subject.step()
    peak_bytes = torch.cuda.max_memory_allocated()
    temporaries_bytes = tracked.at_peak[Role.TEMPORARY] + peak_bytes - tracked.peak_allocated_bytes
    if temporaries_bytes < 0:
        raise RuntimeError(f"the CUDA allocator's peak ({peak_bytes} bytes) is less than the storages tracked ({tracked.peak_allocated_bytes} bytes)")
    return tracked.model_copy(
        update={
            "peak_allocated_bytes": peak_bytes,
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
            "at_peak": tracked.at_peak | {Role.TEMPORARY: temporaries_bytes},
        }
    )
