"""Step time against one parameter of the fabric: a panel a model, its parts stacked, the crossing to network-bound marked."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from reports.drawing import BLUE, GREY, VERMILLION, below, seconds_unit
from reports.fabric.turning import Turn


def draw(figure: Figure, turns: Sequence[tuple[str, Turn]]) -> None:
    """``turns``: model and its predictions, all of the same knob."""
    panels = figure.subplots(1, len(turns), squeeze=False)[0]
    for axes, (model, turn) in zip(panels, turns, strict=True):
        _panel(axes, turn)
        axes.set_title(model)
    below(panels[0], 5)


def _panel(axes: Axes, turn: Turn) -> None:
    knob = turn.knob
    x = [value * knob.scale for value in turn.values]
    scale, unit = seconds_unit(max(report.time.step_s for report in turn.reports))
    time = [report.time for report in turn.reports]
    work = [(each.forward_s + each.backward_s + each.optimizer_s) / scale for each in time]
    host = [each.other_s / scale for each in time]
    exposed = [each.exposed_communication_s / scale for each in time]
    areas = axes.stackplot(x, work, host, exposed, colors=(BLUE, GREY, VERMILLION), labels=("the device works", "host and gaps", "exposed communication"))
    areas[-1].set_hatch("///")
    axes.plot(x, [each.step_s / scale for each in time], color="black", marker="o", markersize=4, linewidth=1.2, label="step")
    logarithmic(axes, x)
    axes.set_ylim(0, max(each.step_s for each in time) / scale * 1.22)
    axes.set_xlabel(knob.axis)
    axes.set_ylabel(f"time of one step ({unit})")
    axes.axvline(turn.now * knob.scale, color="black", linestyle=":", linewidth=1.3, label="as it is")
    if turn.crossing is not None:
        at = turn.crossing * knob.scale
        axes.axvline(at, color=VERMILLION, linestyle="--", linewidth=1.8)
        right = at > (x[0] * x[-1]) ** 0.5
        side = "from here up" if knob.more_is_worse else "from here down"
        axes.annotate(
            f"network-bound\n{side}:\n{knob.show(turn.crossing)}", (at, 0.98), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            xytext=(-6 if right else 6, 0), ha="right" if right else "left", va="top", fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    else:
        said = "network-bound\neverywhere" if turn.always_bound else "never\nnetwork-bound"
        axes.text(0.04, 0.98, said, transform=axes.transAxes, va="top", fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})


def logarithmic(axes: Axes, x: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers, about five of them, at values that were computed."""
    axes.set_xscale("log")
    axes.set_xlim(min(x), max(x))
    every = max(1, round(len(x) / 5))
    axes.set_xticks(x[::every])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
