"""Tables of the step page."""

from reports.page import Table
from reports.step.series import Pair, words
from simulator.comparison import Comparison, Line, compare
from simulator.components import Role
from simulator.records.step_report import CommunicationRow, StepReport
from simulator.units import show_bytes, show_seconds


def memory(pair: Pair) -> tuple[Table, ...]:
    """Categories and components; with a measurement, beside it and with differences."""
    if pair.measured is None:
        report = pair.predicted
        rows = tuple((words(role), f"{report.memory.at_peak.get(role, 0):,}", show_bytes(report.memory.at_peak.get(role, 0))) for role in Role)
        total = ("all, the peak", f"{report.memory.peak_allocated_bytes:,}", show_bytes(report.memory.peak_allocated_bytes))
        return (Table("Bytes at the peak", ("category", "bytes", ""), (*rows, total)), _owned(report))
    joined = compare(pair.predicted, pair.measured)
    return (
        _joined("Memory of one rank, bytes", [*joined.memory, joined.peak], joined, "{:,.0f}"),
        _joined("Memory by component, bytes", joined.components, joined, "{:,.0f}"),
    )


def _owned(report: StepReport) -> Table:
    headers = ("component", "parameters", "gradients", "Adam states", "kept activations")
    rows = tuple(
        (
            words(row.component),
            *(f"{size:,}" if size else "" for size in (row.parameters_bytes, row.gradients_bytes, row.optimizer_bytes, row.activations_bytes)),
        )
        for row in report.memory.components
        if row.parameters_bytes or row.gradients_bytes or row.optimizer_bytes or row.activations_bytes
    )
    return Table("Bytes by component", headers, rows)


def time(pair: Pair) -> tuple[Table, ...]:
    """Parts of the step, and components by phase."""
    if pair.measured is None:
        whole = pair.predicted.time.step_s
        rows = tuple((words(row.component), row.phase.value, show_seconds(row.time_s), f"{row.time_s / whole:.1%}") for row in pair.predicted.time.rows)
        return (Table("Time by component and phase", ("component", "phase", "time", "share of the step"), rows),)
    joined = compare(pair.predicted, pair.measured)
    return (
        _joined("Time of one step, seconds", joined.time, joined, "{:.5g}"),
        _joined("Time by phase and component, seconds", joined.rows, joined, "{:.4g}"),
    )


def _joined(caption: str, lines: list[Line], joined: Comparison, form: str) -> Table:
    rows = tuple((words(line.name), form.format(line.first), form.format(line.second), difference(line)) for line in lines)
    return Table(caption, ("", joined.first, joined.second, "difference"), rows)


def difference(line: Line) -> str:
    """The first over the second less one; equality is said in a word."""
    if line.first == line.second:
        return "equal"
    return f"{line.relative:+.2%}" if line.second else "only here"


def communication(rows: list[CommunicationRow]) -> Table:
    """Collectives of the step, the longest first."""
    headers = ("component", "collective", "ranks", "calls", "bytes a call", "time", "exposed", "of it latency", "hottest link")
    ordered = sorted(rows, key=lambda row: -row.time_s)
    return Table(
        "Collectives of one step (time: all calls together)",
        headers,
        tuple(
            (
                words(row.component), row.collective, str(row.ranks), str(row.calls), show_bytes(row.bytes_per_call),
                show_seconds(row.time_s), show_seconds(row.exposed_s), show_seconds(row.latency_s), row.bottleneck,
            )
            for row in ordered
        ),
    )  # fmt: skip
