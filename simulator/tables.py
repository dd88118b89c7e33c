"""StepReports and comparisons as text."""

from typing import TYPE_CHECKING

from configuration.table import RULE, table
from simulator.components import Role
from simulator.records.step_report import StepReport
from simulator.units import show_binary, show_bytes, show_count, show_seconds

if TYPE_CHECKING:
    from simulator.comparison import Comparison, Line


def report_text(report: StepReport) -> str:
    """Memory by category, time by part, throughput, what holds the step back, and every default used."""
    parts = [_heading(report), _memory(report), _time(report)]
    if report.communication:
        parts.append(_communication(report))
    parts.append(_verdict(report))
    if report.defaults:
        parts.append("Defaults used: " + "; ".join(f"{used.field} = {used.value} ({used.reason})" for used in report.defaults))
    return "\n\n".join([*parts, *report.provenance.notes])


def _heading(report: StepReport) -> str:
    plan = report.plan
    degrees = [f"{name} {plan[name]}" for name in ("tp", "pp", "etp", "zero_stage", "replicas") if plan.get(name, 1) not in (0, 1)]
    ranks = ", ".join([f"{plan['ranks']} ranks", f"ep {plan['ep']}", *degrees])
    return (
        f"{report.model} ({report.kind}): {show_count(report.parameters)} parameters, {show_count(report.active_parameters)} active\n"
        f"{ranks}, {plan['micro_batch']} × {plan['sequence']} tokens a micro-batch and rank, {plan['precision']}; "
        f"{report.provenance.device} on {report.fabric}"
    )


def _memory(report: StepReport) -> str:
    memory = report.memory
    own = {
        Role.PARAMETER: memory.parameters_bytes,
        Role.BUFFER: memory.buffers_bytes,
        Role.GRADIENT: memory.gradients_bytes,
        Role.OPTIMIZER_STATE: memory.optimizer_bytes,
        Role.INPUT: memory.inputs_bytes,
        Role.ACTIVATION: memory.activations_bytes,
    }
    rows: list[tuple[str, ...]] = []
    for role in Role:
        at_peak = memory.at_peak.get(role, 0)
        if role in own:
            rows.append((role.value, f"{own[role]:,}", show_bytes(own[role]), f"{at_peak:,}"))
        elif at_peak:
            rows.append((role.value, "", "", f"{at_peak:,}"))
    at, peak = memory.peak_at, memory.peak_allocated_bytes
    rows += [RULE, (f"peak, in {at.phase} of {at.component} ({at.operation})", f"{peak:,}", f"{show_bytes(peak)} = {show_binary(peak)}", f"{peak:,}")]
    if memory.peak_reserved_bytes is not None:
        rows.append(("peak reserved by the allocator", f"{memory.peak_reserved_bytes:,}", show_bytes(memory.peak_reserved_bytes), ""))
    return table(("memory of one rank", "bytes", "", "at the peak"), rows, right=(1, 2, 3))


def _time(report: StepReport) -> str:
    time = report.time
    rows: list[tuple[str, ...]] = []
    for name in ("forward_s", "backward_s", "optimizer_s", "exposed_communication_s", *(["bubble_s"] if time.bubble_s else []), "other_s"):
        seconds = getattr(time, name)
        part = "other: host, data" if name == "other_s" else name.removesuffix("_s").replace("_", " ")
        rows.append((part, show_seconds(seconds), f"{seconds / time.step_s:.1%}"))
    return table(("time of one step", "seconds", "share"), [*rows, RULE, ("step", show_seconds(time.step_s), "100.0%")], right=(1, 2))


def _communication(report: StepReport) -> str:
    headers = ("communication", "collective", "ranks", "calls", "bytes a call", "time", "exposed", "of it latency", "hottest link")
    rows = [
        (
            row.component.value, row.collective, str(row.ranks), str(row.calls), show_bytes(row.bytes_per_call), show_seconds(row.time_s),
            show_seconds(row.exposed_s), show_seconds(row.latency_s), row.bottleneck,
        )
        for row in report.communication
    ]  # fmt: skip
    return table(headers, rows, right=(2, 3, 4, 5, 6, 7))


def _verdict(report: StepReport) -> str:
    rate = report.throughput
    words = [f"{rate.tokens_per_s:,.0f} tokens/s", f"MFU {rate.mfu:.2%}" if rate.mfu is not None else "MFU unknown (no peak for this device)"]
    if report.bottleneck:
        words.append(report.bottleneck)
    if report.bottleneck_link:
        words.append(f"bottleneck link {report.bottleneck_link}")
    if report.fits is not None and report.device_memory_bytes is not None:
        room = f"{show_bytes(report.memory.peak_allocated_bytes)} of {show_bytes(report.device_memory_bytes)}"
        words.append(f"{'fits' if report.fits else 'DOES NOT FIT'} ({room})")
    return "; ".join(words)


def comparison_text(comparison: "Comparison") -> str:
    """Both reports line by line, with relative differences."""
    parts = [
        _lines(title, lines, form, comparison)
        for title, lines, form in (
            ("memory, bytes", [*comparison.memory, comparison.peak], "{:,.0f}"),
            ("memory by component, bytes", comparison.components, "{:,.0f}"),
            ("time, seconds", comparison.time, "{:.5g}"),
            ("time by phase and component, seconds", comparison.rows, "{:.4g}"),
            ("collectives of a step", comparison.communication, "{:,.5g}"),
            ("ranks", comparison.ranks, "{:,.5g}"),
        )
        if lines
    ]
    remarks = [
        f"peak of {name}: {at.phase}, {at.component}, {at.operation}"
        for name, at in ((comparison.first, comparison.peak_at_first), (comparison.second, comparison.peak_at_second))
    ]
    for name, keys in ((comparison.first, comparison.only_in_first), (comparison.second, comparison.only_in_second)):
        if keys:
            remarks.append(f"only in {name}: {', '.join(keys)}")
    if comparison.different_plan_fields:
        remarks.append(f"the plans differ in: {', '.join(comparison.different_plan_fields)}")
    return "\n\n".join([*parts, "\n".join(remarks)])


def _lines(title: str, lines: "list[Line]", form: str, comparison: "Comparison") -> str:
    rows = []
    for line in lines:
        difference = "equal" if line.first == line.second else f"{line.relative:+.2%}" if line.second else "only here"
        rows.append((line.name, form.format(line.first), form.format(line.second), difference))
    return table((title, comparison.first, comparison.second, "difference"), rows, right=(1, 2, 3))
