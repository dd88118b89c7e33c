"""A training step as a CUDA graph: recorded once, after some ordinary steps, and replayed from then on, so that the host issues one launch a step.

What a graph can hold, and what not: CUDA C++ Programming Guide, "CUDA Graphs"; ``torch.cuda.graph``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from simulator.specs import Plan
from trainer.host_memory import keep_freed_memory
from trainer.model import MoETransformer
from trainer.parallel.parallelize import Parallel
from trainer.step import MicroBatch, StepLosses, training_step

ORDINARY_STEPS = 3
"""Kernels are compiled, states made and communicators joined in these, none of which can be recorded."""

Step = Callable[[Iterator[MicroBatch]], StepLosses]


def build_step(model: MoETransformer, optimizer: torch.optim.Optimizer, plan: Plan, parallel: Parallel) -> Step:
    """``training_step`` of this job, launched as the plan says. On a CPU the process keeps the memory that a step frees."""
    if next(model.parameters()).device.type == "cpu":
        keep_freed_memory()
    step = partial(training_step, model, optimizer, plan=plan, parallel=parallel)
    return ReplayedStep(step, model, optimizer, plan) if plan.implementation.launch == "graph" else step


def release(step: Step) -> None:
    """Let go of what ``step`` has recorded, which must come before its communicators end."""
    if isinstance(step, ReplayedStep):
        step.recording = None


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: list[MicroBatch]
    losses: StepLosses
    addresses: list[int]


class ReplayedStep:
    """``step`` behind a recording of itself. Weights and states must stay where they are; when one has moved, the step is recorded anew."""

    def __init__(self, step: Step, model: MoETransformer, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
        self.step, self.model, self.optimizer, self.plan = step, model, optimizer, plan
        self.ordinary_steps = 0
        # Before a stream of updates beside it, which takes what it leaves idle.
        self.stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
        self.recording: _Recording | None = None

    def __call__(self, micro_batches: Iterator[MicroBatch]) -> StepLosses:
        """Take one optimizer step."""
        batches = [next(micro_batches) for _ in range(self.plan.accumulation)]
        if self.ordinary_steps < ORDINARY_STEPS:
            self.ordinary_steps += 1
            return self._ordinary(batches)
        addresses = self._addresses()
        if self.recording is None or self.recording.addresses != addresses:
            self.recording = None
            self.recording = self._recorded(batches, addresses)
        for own, batch in zip(self.recording.inputs, batches, strict=True):
            for mine, given in zip(own, batch, strict=True):
                mine.copy_(given, non_blocking=True)
        self.recording.graph.replay()
        return _copied(self.recording.losses)

    def _ordinary(self, batches: list[MicroBatch]) -> StepLosses:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            losses = self.step(iter(batches))
        torch.cuda.current_stream().wait_stream(self.stream)
        return losses

    def _recorded(self, batches: list[MicroBatch], addresses: list[int]) -> _Recording:
        inputs = [(tokens_BS.clone(), labels_BS.clone()) for tokens_BS, labels_BS in batches]
        graph = torch.cuda.CUDAGraph()
        # Other threads, which write checkpoints or watch communicators, may go on meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            losses = self.step(iter(inputs))
        return _Recording(graph, inputs, losses, addresses)

    def _addresses(self) -> list[int]:
        states = [state for parameter in self.model.parameters() for state in (parameter, *self.optimizer.state[parameter].values())]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return [tensor.data_ptr() for tensor in (*states, *self.model.buffers(), *rates)]


def _copied(losses: StepLosses) -> StepLosses:
    """The next replay overwrites the recording's own."""
    return StepLosses(
        losses.language_model.clone(), _copy(losses.load_balancing), _copy(losses.router_z),
        [counts_E.clone() for counts_E in losses.counts_LE], [dropped.clone() for dropped in losses.dropped_L], losses.gradient_norm.clone(),
    )  # fmt: skip


def _copy(loss: Tensor | None) -> Tensor | None:
    return None if loss is None else loss.clone()
