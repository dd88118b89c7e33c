"""Regions of two parameters in which network, host, memory traffic or arithmetic holds the step back."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from reports.drawing import BLUE, GREEN, GREY, VERMILLION, WIDTH_INCHES
from reports.fabric.maps import RegionMap

LOOKS = {
    "network-bound": (VERMILLION, "///"),
    "compute-bound": (BLUE, ""),
    "memory-bound": (GREEN, "..."),
    "host-bound": (GREY, "\\\\\\"),
}
PALE = 0.35
"""Strength of a region's colour, so that its hatch and what is written on it can be read."""
STAR = 1.1
"""A name keeps off the rows whose value is within this factor of the star's."""
NAME_INCHES = 1.3
"""Room that a region's name takes."""


def draw(figure: Figure, maps: Sequence[RegionMap]) -> None:
    """A panel a model, all over the same axes."""
    panels = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    for axes, each in zip(panels, maps, strict=True):
        _panel(axes, each)
    panels[0].set_ylabel(maps[0].upwards.axis)
    used = {name for each in maps for row in each.bound for name in row}
    patches = [Patch(facecolor=_pale(colour), hatch=hatch, edgecolor="#444444", label=name) for name, (colour, hatch) in LOOKS.items() if name in used]
    (here,) = panels[0].plot([], [], color="black", marker="*", markersize=12, linestyle="none", label="as it is")
    figure.legend(handles=[*patches, here], loc="outside lower center", ncols=5, frameon=False)


def _panel(axes: Axes, each: RegionMap) -> None:
    x = np.array(each.x) * each.across.scale
    y = np.array(each.y) * each.upwards.scale
    left, low = _edges(x), _edges(y)
    for row, names in enumerate(each.bound):
        for column, name in enumerate(names):
            if name:
                colour, hatch = LOOKS[name]
                corner, size = (left[column], low[row]), (left[column + 1] - left[column], low[row + 1] - low[row])
                axes.add_patch(Rectangle(corner, *size, facecolor=_pale(colour), hatch=hatch, edgecolor="#8a8a8a", linewidth=0))
    _borders(axes, each, left, low)
    _names(axes, each, x, y)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left[0], left[-1])
    axes.set_ylim(low[0], low[-1])
    axes.grid(visible=False)
    for axis, values in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_ticks(values[:: max(1, (len(values) - 1) // 3)].tolist())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}" if value < 1000 else f"{value:.0f}"))
        axis.set_minor_locator(NullLocator())
    here = (each.now[0] * each.across.scale, each.now[1] * each.upwards.scale)
    if min(here) > 0:
        axes.plot(*([value] for value in here), color="black", marker="*", markersize=12, markeredgecolor="white", zorder=5)
    axes.set_xlabel(each.across.axis)
    axes.set_title(each.model)


def _edges(values: np.ndarray) -> np.ndarray:
    """Borders of the cells around values, half way in the logarithm."""
    logs = np.log(values)
    middle = (logs[1:] + logs[:-1]) / 2
    return np.asarray(np.exp(np.r_[2 * logs[0] - middle[0], middle, 2 * logs[-1] - middle[-1]]))


def _borders(axes: Axes, each: RegionMap, left: np.ndarray, low: np.ndarray) -> None:
    """Lines between cells of different regions."""
    for row, names in enumerate(each.bound):
        for column, name in enumerate(names):
            if column + 1 < len(names) and name != names[column + 1]:
                axes.plot([left[column + 1]] * 2, low[row : row + 2], color="black", linewidth=1.4)
            if row + 1 < len(each.bound) and name != each.bound[row + 1][column]:
                axes.plot(left[column : column + 2], [low[row + 1]] * 2, color="black", linewidth=1.4)


def _names(axes: Axes, each: RegionMap, x: np.ndarray, y: np.ndarray) -> None:
    """The name of each region in the middle of its longest row, where that is long enough for it; the legend names them all."""
    size = axes.get_subplotspec()
    panels = size.get_gridspec().ncols if size is not None else 1
    for name in LOOKS:
        runs = [(len(run), row, run) for row, names in enumerate(each.bound) for run in _runs(names, name)]
        if not runs:
            continue
        longest = max(length for length, _, _ in runs)
        rows = [(row, run) for length, row, run in runs if length == longest]
        rows = [(row, run) for row, run in rows if not 1 / STAR < each.y[row] / (each.now[1] or 1.0) < STAR] or rows
        row, run = rows[len(rows) // 2]
        if longest / len(x) * WIDTH_INCHES / panels > NAME_INCHES:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
            middle = np.sqrt(x[run[0]] * x[run[-1]])
            axes.text(middle, y[row], name, ha="center", va="center", fontsize=9, bbox=box, zorder=4, clip_on=True)


def _runs(names: Sequence[str], name: str) -> list[list[int]]:
    """Stretches of neighbouring cells of one region."""
    runs: list[list[int]] = []
    for column, found in enumerate(names):
        if found == name and runs and runs[-1][-1] == column - 1:
            runs[-1].append(column)
        elif found == name:
            runs.append([column])
    return runs


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (1 - PALE * (1 - part) for part in to_rgb(colour))
    return red, green, blue
