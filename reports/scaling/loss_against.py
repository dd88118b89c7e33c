"""Loss against parameters or against tokens, one line for every level of the other, with the gain of each doubling."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import GREY, SERIES, counts
from reports.scaling.settings import Setting
from reports.scaling.slopes import Slope, Variable, series
from simulator.units import show_count

MOST_LINES = 7
MOST_LABELS = 12


def draw(figure: Figure, settings: Sequence[Setting], variable: Variable, counted: str) -> None:
    """``counted``: what N counts, for the axis."""
    axes = figure.add_subplot()
    groups = sorted(series(settings, variable), key=len, reverse=True)[:MOST_LINES]
    drawn = {id(setting) for group in groups for setting in group}
    rest = [setting for setting in settings if id(setting) not in drawn]
    if rest:
        axes.plot([_x(setting, variable) for setting in rest], [setting.loss for setting in rest], color=GREY, marker=".", linestyle="none", label="other runs")
    for group, style in zip(groups, SERIES, strict=False):
        _line(axes, group, variable, style, labelled=sum(map(len, groups)) <= MOST_LABELS)
    axes.set_xscale("log")
    counts(axes.xaxis)
    axes.set_xlabel(f"{counted} parameters N (count)" if variable == "parameters" else "tokens trained on D (count)")
    axes.set_ylabel("validation loss (nats per token)")
    if groups or rest:
        axes.legend(frameon=False, fontsize=9)


def _line(axes: Axes, group: Sequence[Setting], variable: Variable, style: tuple[str, str, str], *, labelled: bool) -> None:
    colour, marker, line = style
    x, y = [_x(setting, variable) for setting in group], [setting.loss for setting in group]
    errors = [setting.error or 0.0 for setting in group]
    held = f"D = {show_count(group[0].d)} tokens" if variable == "parameters" else f"N = {show_count(group[0].n)} parameters"
    experts = f", {group[0].experts[0]:g} experts" if group[0].experts[0] > 1 else ""
    axes.errorbar(x, y, yerr=errors, color=colour, marker=marker, linestyle=line, capsize=3, label=held + experts)
    if labelled:
        for low, high in pairwise(group):
            middle = (_x(low, variable) * _x(high, variable)) ** 0.5
            gain = Slope(variable, low, high).gain
            axes.annotate(f"{-gain:+.3f}", (middle, (low.loss + high.loss) / 2), textcoords="offset points", xytext=(6, 6), fontsize=9, color=colour)


def _x(setting: Setting, variable: Variable) -> float:
    return setting.n if variable == "parameters" else setting.d
