"""The parts of the step's time, which add up to it."""

from matplotlib.figure import Figure

from reports.drawing import BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION, below, seconds_unit
from reports.step.series import Pair

PARTS = {
    "forward_s": ("forward", BLUE, "white"),
    "backward_s": ("backward", ORANGE, "black"),
    "optimizer_s": ("optimizer", GREEN, "white"),
    "exposed_communication_s": ("exposed communication", VERMILLION, "white"),
    "bubble_s": ("waiting for other stages", SKY, "black"),
    "other_s": ("other: host, data", GREY, "black"),
}
SMALLEST_LABELLED_SHARE = 0.06


def draw(figure: Figure, pair: Pair) -> None:
    """One bar a report in per cent of its own step; the length of the step stands beside it, so that unequal devices can be read too."""
    axes = figure.add_subplot()
    names = []
    for report in pair.reports:
        scale, unit = seconds_unit(report.time.step_s)
        names.append(f"{report.kind}\n{report.time.step_s / scale:.4g} {unit}")
    start = [0.0] * len(names)
    for field, (label, colour, ink) in PARTS.items():
        shares = [100 * getattr(report.time, field) / report.time.step_s for report in pair.reports]
        if field == "bubble_s" and not any(shares):
            continue
        bars = axes.barh(names, shares, left=start, height=0.55, color=colour, edgecolor="white", label=label)
        axes.bar_label(bars, [f"{share:.0f} %" if share >= 100 * SMALLEST_LABELLED_SHARE else "" for share in shares], label_type="center", color=ink)
        start = [left + share for left, share in zip(start, shares, strict=True)]
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the step (%)")
    below(axes, 5)
