"""Seconds of each component, split by phase."""

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BLUE, GREEN, ORANGE, seconds_unit
from reports.step.series import Pair, seconds_by_component, words
from simulator.components import Component, Phase

COLOURS = {Phase.FORWARD: BLUE, Phase.BACKWARD: ORANGE, Phase.OPTIMIZER: GREEN}


def draw(figure: Figure, pair: Pair) -> None:
    """One panel a report with an axis of its own: devices may differ by orders of magnitude."""
    spent = [seconds_by_component(report) for report in pair.reports]
    names = [component for component in Component if any(component in seconds for seconds in spent)]
    panels = figure.subplots(1, len(spent), sharey=True, squeeze=False)[0]
    for axes, report, seconds in zip(panels, pair.reports, spent, strict=True):
        scale, unit = seconds_unit(max((sum(phases.values()) for phases in seconds.values()), default=1.0))
        start = np.zeros(len(names))
        for phase in Phase:
            values = np.array([seconds.get(name, {}).get(phase, 0.0) / scale for name in names])
            axes.barh([words(name) for name in names], values, left=start, color=COLOURS[phase], edgecolor="white", label=phase.value)
            start += values
        for row, total in enumerate(start):
            axes.text(total, row, f" {total:.3g}", va="center", fontsize=8.5)
        axes.set_xlim(0, float(start.max()) * 1.12)
        axes.set_title(report.kind)
        axes.set_xlabel(f"time of the component ({unit})")
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    panels[-1].legend(frameon=False, loc="lower right")
