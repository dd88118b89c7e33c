"""The line of bytes through the step, with the peak marked."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import GREY, SERIES, bytes_unit
from reports.step.series import Pair, words
from simulator.components import Phase
from simulator.records.step_report import StepReport, TimelinePoint

SHADES = {Phase.FORWARD: "#eef4fa", Phase.BACKWARD: "#fdf3e7", Phase.OPTIMIZER: "#ecf6f1"}


def draw(figure: Figure, pair: Pair) -> None:
    """Bytes at most in each stretch of one component, stretches in order of execution; both reports' phases take the same width."""
    axes = figure.add_subplot()
    scale, unit = bytes_unit(max(report.memory.peak_allocated_bytes for report in pair.reports))
    bands = _bands(pair.predicted.memory.timeline)
    for (phase, (start, end)), height in zip(bands.items(), [0.02] * len(bands), strict=True):
        axes.axvspan(start, end, color=SHADES[phase], linewidth=0)
        axes.text((start + end) / 2, height, phase.value, transform=axes.get_xaxis_transform(), ha="center", color="#404040")
    for report, (colour, _, line) in zip(pair.reports, SERIES, strict=False):
        x, y = _line(report.memory.timeline, bands)
        measured = report.kind == "measured"
        axes.step(x, y / scale, where="mid", color=colour, linestyle=line, linewidth=1.4 if measured else 2.2, label=report.kind, zorder=3 if measured else 2)
    _mark_peak(figure, pair.predicted, bands, scale, unit)
    axes.set_xlim(0, max(end for _, end in bands.values()))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    axes.set_xlabel("stretches of the step in order of execution (number, of the prediction)")
    axes.set_ylabel(f"bytes allocated ({unit})")
    axes.legend(loc="upper left", frameon=True, framealpha=1.0, edgecolor="white")


def _bands(timeline: Sequence[TimelinePoint]) -> dict[Phase, tuple[float, float]]:
    """From which stretch to which each phase goes."""
    bands: dict[Phase, tuple[float, float]] = {}
    start = 0
    for phase in Phase:
        count = sum(point.phase is phase for point in timeline)
        if count:
            bands[phase] = (float(start), float(start + count))
            start += count
    return bands


def _line(timeline: Sequence[TimelinePoint], bands: dict[Phase, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    x: list[np.ndarray] = []
    y: list[int] = []
    for phase, (start, end) in bands.items():
        sizes = [point.bytes for point in timeline if point.phase is phase]
        x.append(start + (np.arange(len(sizes)) + 0.5) / max(1, len(sizes)) * (end - start))
        y += sizes
    return np.concatenate(x), np.array(y, dtype=float)


def _mark_peak(figure: Figure, report: StepReport, bands: dict[Phase, tuple[float, float]], scale: float, unit: str) -> None:
    axes = figure.axes[0]
    x, y = _line(report.memory.timeline, bands)
    where = int(y.argmax())
    at = report.memory.peak_at
    text = f"peak {report.memory.peak_allocated_bytes / scale:.4g} {unit}\n{at.phase} of {words(at.component)}\n({at.operation})"
    right = x[where] > 0.62 * x[-1]
    axes.plot([x[where]], [y[where] / scale], marker="o", markersize=9, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.6, zorder=4)
    axes.annotate(
        text, (x[where], y[where] / scale), textcoords="offset points", xytext=(-16 if right else 16, -12), ha="right" if right else "left", va="top",
        bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": GREY}, zorder=5,
    )  # fmt: skip
