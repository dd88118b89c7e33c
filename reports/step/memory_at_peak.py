"""Stacked bars: what holds the bytes at the instant of the peak."""

from matplotlib.figure import Figure

from reports.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, below, bytes_unit
from reports.step.series import Pair, role_name
from simulator.components import Role

COLOURS = {
    Role.PARAMETER: BLUE, Role.BUFFER: GREY, Role.GRADIENT: GREEN, Role.OPTIMIZER_STATE: ORANGE,
    Role.INPUT: BLACK, Role.ACTIVATION: VERMILLION, Role.TEMPORARY: YELLOW, Role.COMMUNICATION: PURPLE,
}  # fmt: skip
SMALLEST_LABELLED_SHARE = 0.05


def draw(figure: Figure, pair: Pair) -> None:
    """One horizontal bar a report, its parts in the order of the ledger; the capacity of the device where it is near."""
    axes = figure.add_subplot()
    peak = max(report.memory.peak_allocated_bytes for report in pair.reports)
    scale, unit = bytes_unit(peak)
    names = [f"{report.kind}\n{report.memory.peak_allocated_bytes / scale:.4g} {unit}" for report in pair.reports]
    start = [0.0] * len(names)
    for role in Role:
        sizes = [report.memory.at_peak.get(role, 0) / scale for report in pair.reports]
        if not any(sizes):
            continue
        bars = axes.barh(names, sizes, left=start, height=0.55, color=COLOURS[role], edgecolor="white", label=role_name(role))
        labels = [f"{size:.3g}" if size * scale > SMALLEST_LABELLED_SHARE * peak else "" for size in sizes]
        light = role in (Role.TEMPORARY, Role.OPTIMIZER_STATE, Role.COMMUNICATION)
        axes.bar_label(bars, labels, label_type="center", color="black" if light else "white", fontsize=10)
        start = [left + size for left, size in zip(start, sizes, strict=True)]
    capacity = pair.predicted.device_memory_bytes
    if capacity is not None and capacity < 3 * peak:
        axes.axvline(capacity / scale, color=SKY, linewidth=2, linestyle="--", label="memory of the device")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"bytes allocated at the peak ({unit})")
    below(axes, 4)
