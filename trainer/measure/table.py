"""A measured step on the screen."""

from typing import TYPE_CHECKING

from rich.table import Table

from simulator.components import Phase, Role
from simulator.records.step_report import StepReport

if TYPE_CHECKING:
    from rich.console import Console

MIB = 2**20


def show_report(report: StepReport, console: "Console") -> None:
    """Print memory and time of a step, where they come from, and what nobody gave."""
    provenance = report.provenance
    console.print(f"[bold]{report.model}[/bold], measured on {provenance.device} ({provenance.machine}), {provenance.threads} threads")
    console.print(_memory(report))
    at = report.memory.peak_at
    console.print(f"peak in {at.phase}, {at.component}, {at.operation}")
    console.print(_components(report))
    console.print(_time(report))
    console.print(
        f"{report.throughput.tokens_per_s:,.0f} tokens/s, {report.throughput.model_flops / report.time.step_s:.4g} model FLOP/s{_of_yardstick(report)}"
    )
    if report.ranks:
        console.print(_ranks(report))
        console.print(_communication(report))
    if report.layer_loads:
        console.print(_load(report))
    console.print(f"memory: {provenance.memory_source}\ntime: {provenance.time_source}")
    for note in provenance.notes:
        console.print(note)
    for default in report.defaults:
        console.print(f"[dim]default {default.field} = {default.value} ({default.reason})[/dim]")


def _of_yardstick(report: StepReport) -> str:
    yardstick = report.provenance.yardstick_flops_per_s
    return f", {report.throughput.model_flops / report.time.step_s / yardstick:.1%} of the yardstick" if yardstick else ""


def _ranks(report: StepReport) -> Table:
    table = Table(title="ranks", title_justify="left")
    for name in (
        "rank",
        "parameters, bytes",
        "gradients, bytes",
        "optimizer, bytes",
        "peak, bytes",
        "step, ms",
        "exposed communication, ms",
        "waiting, ms",
        "bubble, ms",
    ):
        table.add_column(name, justify="right")
    for rank in report.ranks:
        memory, waiting_s = rank.memory, sum(row.waiting_s for row in rank.communication)
        sizes = (memory.parameters_bytes, memory.gradients_bytes, memory.optimizer_bytes, memory.peak_allocated_bytes)
        seconds = (rank.time.step_s, rank.time.exposed_communication_s, waiting_s, rank.time.bubble_s)
        table.add_row(str(rank.rank), *(f"{size:,}" for size in sizes), *(f"{value * 1e3:.2f}" for value in seconds))
    return table


def _communication(report: StepReport) -> Table:
    table = Table(title="collectives of the slowest rank, a step", title_justify="left")
    for name in ("group and collective", "component", "ranks", "calls", "bytes a call", "total, ms", "exposed, ms", "waiting for the slowest, ms"):
        table.add_column(name, justify="left" if name in ("group and collective", "component") else "right")
    for row in report.communication:
        seconds = (row.time_s, row.exposed_s, row.waiting_s)
        table.add_row(
            f"{row.name} {row.collective}",
            row.component,
            str(row.ranks),
            str(row.calls),
            f"{row.bytes_per_call:,.0f}",
            *(f"{value * 1e3:.2f}" for value in seconds),
        )
    return table


def _memory(report: StepReport) -> Table:
    memory = report.memory
    table = Table(title="memory", title_justify="left")
    for name in ("category", "bytes", "MiB", "at the peak, bytes"):
        table.add_column(name, justify="left" if name == "category" else "right")
    owned: dict[Role, int | None] = {
        Role.PARAMETER: memory.parameters_bytes,
        Role.BUFFER: memory.buffers_bytes,
        Role.GRADIENT: memory.gradients_bytes,
        Role.OPTIMIZER_STATE: memory.optimizer_bytes,
        Role.INPUT: memory.inputs_bytes,
        Role.ACTIVATION: memory.activations_bytes,
        Role.TEMPORARY: None,
    }
    for role, size in owned.items():
        table.add_row(role, *_sizes(size), f"{memory.at_peak.get(role, 0):,}")
    table.add_section()
    table.add_row("peak allocated", *_sizes(memory.peak_allocated_bytes), f"{sum(memory.at_peak.values()):,}")
    if memory.peak_reserved_bytes is not None:
        table.add_row("peak reserved", *_sizes(memory.peak_reserved_bytes), "")
    return table


def _sizes(size: int | None) -> tuple[str, str]:
    return ("", "") if size is None else (f"{size:,}", f"{size / MIB:.3f}")


def _components(report: StepReport) -> Table:
    table = Table(title="bytes by component", title_justify="left")
    for name in ("component", "parameters", "gradients", "optimizer", "activations"):
        table.add_column(name, justify="left" if name == "component" else "right")
    for row in report.memory.components:
        sizes = (row.parameters_bytes, row.gradients_bytes, row.optimizer_bytes, row.activations_bytes)
        table.add_row(row.component, *(f"{size:,}" for size in sizes))
    return table


def _load(report: StepReport) -> Table:
    table = Table(title="load of the experts", title_justify="left")
    for name in ("layer", "choices", "busiest over the mean", "dead experts", "dropped"):
        table.add_column(name, justify="right")
    for row in report.layer_loads:
        table.add_row(str(row.layer), f"{sum(row.counts):,}", f"{row.max_over_mean:.2f}", str(row.dead_experts), f"{row.dropped:,}")
    return table


def _time(report: StepReport) -> Table:
    time = report.time
    table = Table(title="time, ms", title_justify="left")
    for name in ("component", *Phase, "share of step"):
        table.add_column(name, justify="left" if name == "component" else "right")
    by_component: dict[str, dict[Phase, float]] = {}
    for row in time.rows:
        by_component.setdefault(row.component, {})[row.phase] = row.time_s
    for component, parts in sorted(by_component.items(), key=lambda item: -sum(item[1].values())):
        table.add_row(component, *(f"{1e3 * parts[phase]:.3f}" if phase in parts else "" for phase in Phase), f"{sum(parts.values()) / time.step_s:.1%}")
    table.add_section()
    table.add_row("all", *(f"{1e3 * seconds:.3f}" for seconds in (time.forward_s, time.backward_s, time.optimizer_s)), "")
    waits = {"exposed communication": time.exposed_communication_s, "waiting for other stages": time.bubble_s}
    for name, seconds_s in {**{name: seconds for name, seconds in waits.items() if seconds}, "other: host, data": time.other_s}.items():
        table.add_row(name, "", "", f"{1e3 * seconds_s:.3f}", f"{seconds_s / time.step_s:.1%}")
    table.add_row("step", "", "", f"{1e3 * time.step_s:.3f}", "100.0%")
    return table
