"""Steps under PyTorch's profiler: what ran on the host and on the device, and which component of the step issued it.

The profiler's Chrome trace is the source: of a kernel it has name, stream, time, and the call on the host that launched it.
"""

import json
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from simulator.components import Component, Phase
from trainer.measure.scope import tracking
from trainer.measure.spans import Span
from trainer.measure.subject import Subject

PROFILED_STEPS = 3
WARM_UP_STEPS = 1
"""The profiler's own start is no part of a step."""

DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")
"""Categories of a trace's events: what a device does, and the calls on the host that gave it to do."""

Place = tuple[Phase, Component]


@dataclass(frozen=True)
class Kernel:
    """One piece of work of a device. ``launched_s``: when the host gave it, by the clock of all times of a profile."""

    name: str
    stream: str
    span: Span
    launched_s: float

    @property
    def communicates(self) -> bool:
        """Whether it is one of NCCL's."""
        return self.name.startswith("nccl")


@dataclass
class Profile:
    """``steps`` steps: the trace, and the moments at which the component changed on the host, in ns of ``time.time_ns``."""

    steps: int
    trace: dict[str, Any] = field(default_factory=dict)
    marks: list[tuple[int, Place]] = field(default_factory=list)
    end_ns: int = 0

    def seconds(self, ns: int) -> float:
        """A moment of ``time.time_ns`` on the trace's clock."""
        return (ns - int(self.trace.get("baseTimeNanoseconds", 0))) / 1e9

    @cached_property
    def _starts_s(self) -> list[float]:
        return [self.seconds(ns) for ns, _ in self.marks]

    def place(self, moment_s: float) -> Place | None:
        """What the host was at; None before the first step."""
        index = bisect_right(self._starts_s, moment_s) - 1
        return self.marks[index][1] if index >= 0 else None

    @cached_property
    def kernels(self) -> list[Kernel]:
        """Work of the device that the profiled steps launched, in order of its beginning."""
        events = [event for event in self.trace["traceEvents"] if event.get("ph") == "X"]
        launched_us = {_correlation(event): event["ts"] for event in events if event.get("cat") in LAUNCHES}
        found = []
        for event in events:
            if event.get("cat") in DEVICE_WORK:
                span = (event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
                launched_s = launched_us.get(_correlation(event), event["ts"]) / 1e6
                found.append(Kernel(event["name"], str(event["args"].get("stream", event.get("tid"))), span, launched_s))
        return sorted(found, key=lambda kernel: kernel.span)


def _correlation(event: dict[str, Any]) -> object:
    return event.get("args", {}).get("correlation")


def profile_steps(
    subject: Subject,
    steps: int = PROFILED_STEPS,
    *,
    around: AbstractContextManager[object] | None = None,
    observe: Callable[[Phase, Component], None] | None = None,
) -> Profile:
    """Take ``steps`` steps under the profiler, after one more. ``around`` is open and ``observe`` told of every change of component meanwhile."""
    from torch.profiler import ProfilerActivity, profile, schedule

    found = Profile(steps)

    def mark(phase: Phase, component: Component) -> None:
        found.marks.append((time.time_ns(), (phase, component)))
        if observe is not None:
            observe(phase, component)

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if subject.device == "cuda" else [])]
    rhythm = schedule(wait=0, warmup=WARM_UP_STEPS, active=steps)
    with profile(activities=activities, schedule=rhythm, on_trace_ready=lambda profiler: _keep(profiler, found), acc_events=True) as profiler:
        for _ in range(WARM_UP_STEPS):
            subject.step()
            profiler.step()
        with around or nullcontext():
            for _ in range(steps):
                with tracking(mark):
                    subject.step(_marked(subject, mark))
                found.end_ns = time.time_ns()
                profiler.step()
    return found


def _marked(subject: Subject, mark: Callable[[Phase, Component], None]) -> Iterator[Any]:
    """The subject's micro-batches, which are the frame's work."""
    while True:
        mark(Phase.FORWARD, Component.INPUTS)
        yield next(subject.micro_batches)


def _keep(profiler: "torch.profiler.profile", found: Profile) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(file.as_posix())
        found.trace = json.loads(file.read_text(encoding="utf-8"))
