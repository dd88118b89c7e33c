"""Kept activations by the component that made them."""

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import SERIES, bytes_unit
from reports.step.series import Pair, activations_by_component, words
from simulator.components import Component
from simulator.units import show_bytes


def components(pair: Pair) -> list[Component]:
    """Components that keep activations in any of the reports, in the order of the model."""
    kept = [activations_by_component(report) for report in pair.reports]
    return [component for component in Component if any(component in sizes for sizes in kept)]


def draw(figure: Figure, pair: Pair) -> None:
    """One group of bars a component."""
    axes = figure.add_subplot()
    names = components(pair)
    kept = [activations_by_component(report) for report in pair.reports]
    scale, unit = bytes_unit(max((size for sizes in kept for size in sizes.values()), default=1))
    height = 0.8 / len(pair.reports)
    for place, (report, sizes, (colour, _, _)) in enumerate(zip(pair.reports, kept, SERIES, strict=False)):
        y = np.arange(len(names)) + (place - (len(pair.reports) - 1) / 2) * height
        values = [sizes.get(name, 0) / scale for name in names]
        bars = axes.barh(y, values, height=height, color=colour, edgecolor="white", hatch="///" if report.kind == "measured" else None, label=report.kind)
        axes.bar_label(bars, [show_bytes(sizes.get(name, 0)) for name in names], padding=3, fontsize=9)
    axes.set_yticks(np.arange(len(names)), [words(name) for name in names])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"activations alive after the last forward ({unit})")
    axes.legend(frameon=False, loc="lower right")
