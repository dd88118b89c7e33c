"""Training loss of every run against tokens, with ln V."""

import math
from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.figure import Figure

from reports.drawing import GREY, SERIES, counts
from reports.scaling.logs import Curve

SMOOTHED_OVER = 50


def draw(figure: Figure, curves: Sequence[Curve]) -> None:
    """The first steps as they are logged; the rest as means over about one fiftieth of a run."""
    axes = figure.add_subplot()
    many = len(curves) > len(SERIES)
    for place, curve in enumerate(curves):
        colour, line = (colormaps["cividis"](place / (len(curves) - 1)), "-") if many else (SERIES[place][0], SERIES[place][2])
        axes.plot(*_smoothed(curve), color=colour, linestyle=line, linewidth=1.5, label=curve.run)
    for vocabulary in sorted({curve.vocabulary for curve in curves if curve.vocabulary is not None}):
        axes.axhline(math.log(vocabulary), color=GREY, linestyle=":", linewidth=1.5)
        axes.annotate(f"ln V = {math.log(vocabulary):.3f}", (1, math.log(vocabulary)), xycoords=axes.get_yaxis_transform(), xytext=(0, 4),
                      textcoords="offset points", ha="right", fontsize=9)  # fmt: skip
    axes.set_xscale("log")
    counts(axes.xaxis)
    axes.set_xlabel("tokens trained on")
    axes.set_ylabel("training loss (nats per token)")
    if many:
        figure.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=4)
    else:
        axes.legend(frameon=False)


def _smoothed(curve: Curve) -> tuple[list[float], list[float]]:
    width = max(1, len(curve.losses) // SMOOTHED_OVER)
    x, y = list(curve.tokens[:width]), list(curve.losses[:width])
    for start in range(width, len(curve.losses), width):
        part = slice(start, start + width)
        x.append(sum(curve.tokens[part]) / len(curve.tokens[part]))
        y.append(sum(curve.losses[part]) / len(curve.losses[part]))
    return x, y
