"""StepReports and comparisons as tables on the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from simulator.components import Role
from simulator.records.step_report import StepReport
from simulator.units import show_binary, show_bytes, show_count, show_seconds

if TYPE_CHECKING:
    from simulator.comparison import Comparison, Line


def show_report(console: Console, report: StepReport) -> None:
    """Memory by category, time by part, throughput, what holds the step back, and every default used."""
    console.print(_heading(report))
    console.print(_memory(report))
    console.print(_time(report))
    if report.communication:
        console.print(_communication(report))
    console.print(_verdict(report))
    if report.defaults:
        console.print("[dim]Defaults used: " + "; ".join(f"{used.field} = {used.value} ({used.reason})" for used in report.defaults) + "[/dim]", soft_wrap=True)
    for note in report.provenance.notes:
        console.print(f"[dim]{note}[/dim]")


def _heading(report: StepReport) -> str:
    plan = report.plan
    tokens = f"{plan['micro_batch']} × {plan['sequence']} tokens a micro-batch and rank"
    return (
        f"[bold]{report.model}[/bold] ({report.kind}): {show_count(report.parameters)} parameters, {show_count(report.active_parameters)} active; "
        f"{plan['ranks']} ranks, ep {plan['ep']}, {tokens}, {plan['precision']}; {report.provenance.device} on {report.fabric}"
    )


def _memory(report: StepReport) -> Table:
    memory = report.memory
    table = Table("memory of one rank", "bytes", "", "at the peak", title_justify="left")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    rows = {
        Role.PARAMETER: memory.parameters_bytes,
        Role.BUFFER: memory.buffers_bytes,
        Role.GRADIENT: memory.gradients_bytes,
        Role.OPTIMIZER_STATE: memory.optimizer_bytes,
        Role.INPUT: memory.inputs_bytes,
        Role.ACTIVATION: memory.activations_bytes,
    }
    for role in Role:
        at_peak = memory.at_peak.get(role, 0)
        if role in rows or at_peak:
            own = rows.get(role)
            table.add_row(role.value, "" if own is None else f"{own:,}", "" if own is None else show_bytes(own), f"{at_peak:,}")
    table.add_section()
    at = memory.peak_at
    peak = memory.peak_allocated_bytes
    table.add_row(f"[bold]peak[/bold], in {at.phase} of {at.component} ({at.operation})", f"{peak:,}", f"{show_bytes(peak)} = {show_binary(peak)}", f"{peak:,}")
    if memory.peak_reserved_bytes is not None:
        table.add_row("peak reserved by the allocator", f"{memory.peak_reserved_bytes:,}", show_bytes(memory.peak_reserved_bytes), "")
    return table


def _time(report: StepReport) -> Table:
    time = report.time
    table = Table("time of one step", "seconds", "share")
    table.columns[1].justify = table.columns[2].justify = "right"
    for name in ("forward_s", "backward_s", "optimizer_s", "exposed_communication_s", "other_s"):
        seconds = getattr(time, name)
        table.add_row(name.removesuffix("_s").replace("_", " "), show_seconds(seconds), f"{seconds / time.step_s:.1%}")
    table.add_section()
    table.add_row("[bold]step[/bold]", show_seconds(time.step_s), "100 %")
    return table


def _communication(report: StepReport) -> Table:
    table = Table("communication", "collective", "ranks", "calls", "bytes a call", "time", "exposed", "of it latency", "hottest link")
    for row in report.communication:
        table.add_row(
            row.component, row.collective, str(row.ranks), str(row.calls), show_bytes(row.bytes_per_call), show_seconds(row.time_s),
            show_seconds(row.exposed_s), show_seconds(row.latency_s), row.bottleneck,
        )  # fmt: skip
    return table


def _verdict(report: StepReport) -> str:
    rate = report.throughput
    words = [f"{rate.tokens_per_s:,.0f} tokens/s", f"MFU {rate.mfu:.2%}" if rate.mfu is not None else "MFU unknown (no peak for this device)"]
    if report.bottleneck:
        words.append(report.bottleneck)
    if report.bottleneck_link:
        words.append(f"bottleneck link {report.bottleneck_link}")
    if report.fits is not None and report.device_memory_bytes is not None:
        room = f"{show_bytes(report.memory.peak_allocated_bytes)} of {show_bytes(report.device_memory_bytes)}"
        words.append(f"{'fits' if report.fits else '[bold red]does not fit[/bold red]'} ({room})")
    return "; ".join(words)


def show_comparison(console: Console, comparison: "Comparison") -> None:
    """Both reports line by line, with relative differences."""
    for title, lines, form in (
        ("memory, bytes", [*comparison.memory, comparison.peak], "{:,.0f}"),
        ("memory by component, bytes", comparison.components, "{:,.0f}"),
        ("time, seconds", comparison.time, "{:.5g}"),
        ("time by phase and component, seconds", comparison.rows, "{:.4g}"),
    ):
        console.print(_lines(title, lines, form, comparison))
    for name, at in ((comparison.first, comparison.peak_at_first), (comparison.second, comparison.peak_at_second)):
        console.print(f"peak of {name}: {at.phase}, {at.component}, {at.operation}")
    for name, keys in ((comparison.first, comparison.only_in_first), (comparison.second, comparison.only_in_second)):
        if keys:
            console.print(f"only in {name}: {', '.join(keys)}")
    if comparison.different_plan_fields:
        console.print(f"[yellow]the plans differ in: {', '.join(comparison.different_plan_fields)}[/yellow]")


def _lines(title: str, lines: "list[Line]", form: str, comparison: "Comparison") -> Table:
    table = Table(title, comparison.first, comparison.second, "difference")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for line in lines:
        difference = "equal" if line.first == line.second else f"{line.relative:+.2%}" if line.second else "only here"
        table.add_row(line.name, form.format(line.first), form.format(line.second), difference)
    return table
