"""Two StepReports joined line by line."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from configuration.errors import ConfigurationError
from configuration.files import read_json
from simulator.components import Component, Phase
from simulator.records.step_report import PeakPoint, Record, StepReport

CATEGORIES = ("parameters_bytes", "buffers_bytes", "gradients_bytes", "optimizer_bytes", "inputs_bytes", "activations_bytes")
PARTS = ("step_s", "forward_s", "backward_s", "optimizer_s", "exposed_communication_s", "bubble_s", "other_s")


class Line(Record):
    """One quantity in both reports; ``relative`` is first over second minus one (0 when both are 0)."""

    name: str
    first: float
    second: float
    relative: float


class Comparison(Record):
    """Lines of memory, memory by component, time, time by component and phase, seconds of each collective, and peak and time of each rank in both.

    ``only_in_*`` lists unmatched (component, phase) and collectives. Of a pipeline memory and time are those of the ranks that the first report speaks of.
    """

    schema_version: Literal[1] = 1
    first: str
    second: str
    peak: Line
    peak_at_first: PeakPoint
    peak_at_second: PeakPoint
    memory: list[Line]
    components: list[Line]
    time: list[Line]
    rows: list[Line]
    communication: list[Line]
    ranks: list[Line]
    only_in_first: list[str]
    only_in_second: list[str]
    different_plan_fields: list[str]


def load_report(path: Path) -> StepReport:
    """Read a StepReport. Raises ConfigurationError in one line when the file is none."""
    data = read_json(path, "report")
    data.pop("comparison", None)
    try:
        return StepReport.model_validate(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise ConfigurationError(f"{path}: no StepReport of schema version 1: {field}: {fault['msg']}") from None


def compare(first: StepReport, second: StepReport) -> Comparison:
    """Join two reports on names."""
    second = _of_the_same_stages(first, second)
    owned_first = {row.component: row for row in first.memory.components}
    owned_second = {row.component: row for row in second.memory.components}
    components = [
        _line(f"{component}: {name.removesuffix('_bytes')}", getattr(owned_first.get(component), name, 0), getattr(owned_second.get(component), name, 0))
        for component in Component
        for name in ("parameters_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes")
        if component in owned_first or component in owned_second
    ]
    rows_first = {(row.phase, row.component): row.time_s for row in first.time.rows}
    rows_second = {(row.phase, row.component): row.time_s for row in second.time.rows}
    both = [key for key in rows_first if key in rows_second]
    sent_first, sent_second = _communication(first), _communication(second)
    # Where one says nothing of its collectives (on one rank, or on CUDA), nothing is missing.
    told = bool(sent_first and sent_second)
    return Comparison(
        first=f"{first.kind} {first.model}",
        second=f"{second.kind} {second.model}",
        peak=_line("peak allocated", first.memory.peak_allocated_bytes, second.memory.peak_allocated_bytes),
        peak_at_first=first.memory.peak_at,
        peak_at_second=second.memory.peak_at,
        memory=[_line(name.removesuffix("_bytes"), getattr(first.memory, name), getattr(second.memory, name)) for name in CATEGORIES],
        components=[line for line in components if line.first or line.second],
        time=[_line(name.removesuffix("_s"), getattr(first.time, name), getattr(second.time, name)) for name in PARTS],
        rows=[_line(_name(key), rows_first[key], rows_second[key]) for key in both],
        communication=[
            _line(f"{name}: {part}", sent_first[name][part], sent_second[name][part])
            for name in sent_first
            if name in sent_second
            for part in ("calls", "bytes", "seconds", "exposed seconds")
        ],
        ranks=_ranks(first, second),
        only_in_first=[*(_name(key) for key in rows_first if key not in rows_second), *(name for name in sent_first if told and name not in sent_second)],
        only_in_second=[*(_name(key) for key in rows_second if key not in rows_first), *(name for name in sent_second if told and name not in sent_first)],
        different_plan_fields=sorted(name for name in set(first.plan) | set(second.plan) if first.plan.get(name) != second.plan.get(name)),
    )


def _of_the_same_stages(first: StepReport, second: StepReport) -> StepReport:
    """``second`` with memory and time of the stages of a pipeline that ``first`` speaks of."""
    theirs = {row.rank: row for row in second.ranks}
    found: dict[str, object] = {}
    for row in first.ranks:
        if row.rank in theirs and first.plan.get("pp") == second.plan.get("pp") != 1:
            if row.memory == first.memory:
                found |= {"memory": theirs[row.rank].memory}
            if row.time == first.time:
                found |= {"time": theirs[row.rank].time, "communication": theirs[row.rank].communication}
    return second.model_copy(update=found)


def _communication(report: StepReport) -> dict[str, dict[str, float]]:
    """Sums over a step by group, component and collective."""
    sums: dict[str, dict[str, float]] = {}
    for row in report.communication:
        found = sums.setdefault(f"{row.name} {row.component} {row.collective}", dict.fromkeys(("calls", "bytes", "seconds", "exposed seconds"), 0.0))
        for part, number in (("calls", row.calls), ("bytes", row.calls * row.bytes_per_call), ("seconds", row.time_s), ("exposed seconds", row.exposed_s)):
            found[part] += number
    return sums


def _ranks(first: StepReport, second: StepReport) -> list[Line]:
    theirs = {row.rank: row for row in second.ranks}
    lines = []
    for row in (row for row in first.ranks if row.rank in theirs):
        other = theirs[row.rank]
        lines.append(_line(f"rank {row.rank}: peak allocated, bytes", row.memory.peak_allocated_bytes, other.memory.peak_allocated_bytes))
        lines += [_line(f"rank {row.rank}: {name.removesuffix('_s')}, seconds", getattr(row.time, name), getattr(other.time, name)) for name in PARTS]
    return lines


def _name(key: tuple[Phase, Component]) -> str:
    return f"{key[0]} {key[1]}"


def _line(name: str, first: float, second: float) -> Line:
    return Line(name=name, first=first, second=second, relative=0.0 if first == second else (first - second) / second if second else 1e9)
