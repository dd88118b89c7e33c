"""Puts the page of one step together."""

from functools import partial
from pathlib import Path

from configuration.errors import ConfigurationError
from reports import provenance
from reports.drawing import picture
from reports.page import Page, Section, Table
from reports.step import activations, memory_at_peak, memory_timeline, tables, time_by_component, time_parts
from reports.step.series import Pair
from reports.step.verdicts import verdicts
from simulator.comparison import load_report
from simulator.records.step_report import StepReport
from simulator.units import show_count

LIMITS = (
    "One rank of one steady step (the third or later); gradients are freed after it. The first step, evaluation and checkpoints may need more.",
    "Bytes are those of storages that the framework allocates. What an allocator rounds up, caches or loses to fragmentation comes on top.",
    "A predicted time is as good as the device profile that it was made with: profiles from data sheets alone are optimistic.",
    "Rows of time are the device's work; the host's own time stands under 'other'.",
)


def build(predicted: Path, measured: Path | None) -> Page:
    """Read one or two StepReports and draw them. Raises ConfigurationError for files that are none, or of the other kind."""
    pair = Pair(_read(predicted, "predicted"), None if measured is None else _read(measured, "measured"))
    report = pair.predicted
    both = f"{predicted} beside {measured}" if measured else f"{predicted}"
    plan = report.plan
    sources = [row for each in pair.reports for row in provenance.of_report(f"The {each.kind} report", each.provenance)]
    subject = (
        f"{report.model}, {show_count(report.parameters)} parameters ({show_count(report.active_parameters)} active); {plan['ranks']} ranks, expert parallel "
        f"{plan['ep']}, {plan['micro_batch']} × {plan['sequence']} tokens a micro-batch, {plan['precision']}; {report.provenance.device} on {report.fabric}"
    )
    return Page(
        name="step",
        title="One training step",
        subject=subject,
        verdicts=verdicts(pair),
        sections=(_memory(pair), _time(pair), *_communication(report), *_defaults(report)),
        provenance=(("Drawn", both), *provenance.of_page(path for path in (predicted, measured) if path is not None), *sources),
        limits=LIMITS,
    )


def _read(path: Path, kind: str) -> StepReport:
    report = load_report(path)
    if report.kind != kind:
        raise ConfigurationError(f"--{kind} {path}: holds a {report.kind} report (expected: a {kind} one)")
    return report


def _memory(pair: Pair) -> Section:
    rows = len(activations.components(pair))
    bars = 0.8 * len(pair.reports)
    return Section(
        "Memory",
        (),
        (
            picture("memory_at_peak", "What holds the bytes at the instant of the peak.", partial(memory_at_peak.draw, pair=pair), 1.6 + bars),
            picture(
                "memory_timeline", "Most bytes allocated in each stretch of one component, through the step.", partial(memory_timeline.draw, pair=pair), 4.4
            ),
            picture("activations", "Activations kept for backward, by the component that made them.", partial(activations.draw, pair=pair), 1.2 + 0.36 * rows),
            *tables.memory(pair),
        ),
    )


def _time(pair: Pair) -> Section:
    bars = 0.8 * len(pair.reports)
    return Section(
        "Time",
        (),
        (
            picture("time_parts", "Where the step's time goes; the parts add up to the step.", partial(time_parts.draw, pair=pair), 1.5 + bars),
            picture("time_by_component", "Time of the device's work by component and phase.", partial(time_by_component.draw, pair=pair), 6.0),
            *tables.time(pair),
        ),
    )


def _communication(report: StepReport) -> tuple[Section, ...]:
    if not report.communication:
        return ()
    whole, exposed = report.time.communication_s, report.time.exposed_communication_s
    step = report.time.step_s
    text = f"All collectives together last {whole / step:.0%} of the step; {exposed / step:.1%} of the step is exposed communication, which nothing hides."
    return (Section("Communication", (text,), (tables.communication(report.communication),)),)


def _defaults(report: StepReport) -> tuple[Section, ...]:
    if not report.defaults:
        return ()
    rows = tuple((used.field, used.value, used.reason) for used in report.defaults)
    return (Section("Defaults used", (), (Table("Values that nobody gave", ("field", "value", "why"), rows),)),)
