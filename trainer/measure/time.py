"""The time pass: plain steps give the step's time, steps with a clock at every change of component say how it is spent.

A reference matrix product runs between them, so that a machine that slows down meanwhile shows.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from simulator.components import Component, Phase
from simulator.records.step_report import ComponentTime, Time
from trainer.measure.scope import tracking
from trainer.measure.subject import Subject
from trainer.step import MicroBatch

WARM_UP_STEPS = 3
YARDSTICK_SIZES = {"cpu": 512, "cuda": 4096}
"""Rows, columns and inner width of the reference product: some milliseconds on a CPU core, a fraction of one on a GPU."""

Key = tuple[Phase, Component]
FRAME = (Phase.FORWARD, Component.INPUTS)
HANGING_HOOKS = (Phase.BACKWARD, Component.INPUTS)
"""The instrument's own work, where it follows the forward pass, or what a pipeline does between passes; later in backward it is what no scope was around."""
OUTSIDE = (Component.INPUTS, Component.PIPELINE)
"""What has no row: the frame of a step, and what a pipeline does between its passes."""


@dataclass(frozen=True)
class TimePass:
    """``clock_ratio``: what the rows and the rest were multiplied by to add up to the step without a clock."""

    time: Time
    clock_ratio: float
    yardstick_flops_per_s: float
    yardstick: str
    source: str


def measure_time(subject: Subject, operations: Counter[Key], repeats: int) -> TimePass:
    """Median over ``repeats`` steps of each kind, interleaved.

    ``operations`` of the memory pass say which (phase, component) has a row; the time of all others is ``other_s``.
    """
    for _ in range(WARM_UP_STEPS):
        subject.step()
    plain_s: list[float] = []
    clocked: list[dict[Key | None, float]] = []
    products_s: list[float] = []
    product = _Product(subject)
    product.seconds()
    for _ in range(repeats):
        plain_s.append(_seconds(subject, subject.step))
        clocked.append(_clocked_step(subject))
        products_s.append(product.seconds())
    step_s = median(plain_s)
    rows_s, other_s = _split(clocked, {key for key in operations if key[1] not in OUTSIDE})
    ratio = step_s / (sum(rows_s.values()) + other_s)
    return TimePass(
        _time(step_s, {key: seconds * ratio for key, seconds in rows_s.items()}, operations, plain_s),
        ratio,
        product.flops / median(products_s),
        product.name,
        "CUDA events" if subject.device == "cuda" else "time.perf_counter",
    )


def _time(step_s: float, rows_s: dict[Key, float], operations: Counter[Key], repeats_s: list[float]) -> Time:
    by_phase = {phase: sum(seconds for (row_phase, _), seconds in rows_s.items() if row_phase is phase) for phase in Phase}
    return Time(
        step_s=step_s,
        forward_s=by_phase[Phase.FORWARD],
        backward_s=by_phase[Phase.BACKWARD],
        optimizer_s=by_phase[Phase.OPTIMIZER],
        exposed_communication_s=0.0,
        other_s=max(step_s - sum(rows_s.values()), 0.0),
        communication_s=0.0,
        rows=[
            ComponentTime(component=component, phase=phase, time_s=rows_s[phase, component], operations=operations[phase, component])
            for phase in Phase
            for component in Component
            if (phase, component) in rows_s
        ],
        repeats_s=repeats_s,
    )


def _split(clocked: list[dict[Key | None, float]], rows: Collection[Key]) -> tuple[dict[Key, float], float]:
    """Medians of the rows, and of all the rest but the instrument's own time (None)."""
    rows_s = {key: median(step.get(key, 0.0) for step in clocked) for key in rows}
    other_s = median(sum(seconds for key, seconds in step.items() if key is not None and key not in rows) for step in clocked)
    return rows_s, other_s


class _Clock:
    """Takes the time at every change of component. The frame between two scopes of the forward pass counts with the first of them."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.marks: list[tuple[Key | None, Any]] = []
        self.phase, self.component = Phase.FORWARD, Component.INPUTS

    def observe(self, phase: Phase, component: Component) -> None:
        """Begin a stretch."""
        key, before, between_passes = (phase, component), self.phase, self.component is Component.PIPELINE
        self.phase, self.component = phase, component
        if key == FRAME and self.marks and before is Phase.FORWARD:
            return
        hanging = key == HANGING_HOOKS and (before is Phase.FORWARD or between_passes)
        self.marks.append((None if hanging else key, self._now()))

    def seconds(self) -> dict[Key | None, float]:
        """Seconds of all stretches, from the first mark to now."""
        ends = [mark for _, mark in self.marks[1:]] + [self._now()]
        if self.device == "cuda":
            torch.cuda.synchronize()
        found: dict[Key | None, float] = defaultdict(float)
        for (key, begin), end in zip(self.marks, ends, strict=True):
            found[key] += begin.elapsed_time(end) / 1000 if self.device == "cuda" else end - begin
        return found

    def _now(self) -> Any:
        if self.device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _clocked_step(subject: Subject) -> dict[Key | None, float]:
    clock = _Clock(subject.device)
    with tracking(clock.observe):
        subject.step(_announced(subject.micro_batches, clock))
    return clock.seconds()


def _announced(micro_batches: Iterator[MicroBatch], clock: _Clock) -> Iterator[MicroBatch]:
    while True:
        clock.observe(*FRAME)
        yield next(micro_batches)


class _Product:
    """The yardstick: a square matrix product in the plan's compute type."""

    def __init__(self, subject: Subject) -> None:
        size = YARDSTICK_SIZES[subject.device]
        dtype = subject.model.compute_dtype
        self.subject = subject
        self.left, self.right = (torch.ones(size, size, dtype=dtype, device=subject.device) for _ in range(2))
        self.flops = 2.0 * size**3
        self.name = f"torch.mm of {size} x {size} x {size} in {str(dtype).removeprefix('torch.')}"

    def seconds(self) -> float:
        """Time of one product."""
        return _seconds(self.subject, lambda: torch.mm(self.left, self.right))


def _seconds(subject: Subject, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    subject.wait()
    return time.perf_counter() - begin
