"""Errors of the step and of its phases, one row a measurement."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from calibration.device.validation import PHASES, Validation
from reports.drawing import BLACK, SERIES, below


def draw(figure: Figure, found: Validation) -> None:
    """Predicted over measured less one, sorted by measured time; the grey bar is the half-spread of the repeats."""
    axes = figure.add_subplot()
    steps = sorted(found.steps, key=lambda step: step.measured_s)
    y = np.arange(len(steps))
    axes.barh(
        y, [2 * step.half_spread for step in steps], left=[-step.half_spread for step in steps], color="#dddddd", height=0.7, label="spread of the repeats"
    )
    for phase, (colour, marker, _) in zip(PHASES, SERIES, strict=False):
        axes.plot([step.phases[phase] for step in steps], y, color=colour, marker=marker, markersize=5, linestyle="none", label=phase)
    axes.plot([step.step for step in steps], y, color=BLACK, marker="X", markersize=8, linestyle="none", label="step")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(y, [step.name for step in steps])
    axes.set_ylim(-0.7, len(steps) - 0.3)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("predicted over measured, less one (%)")
    below(axes, 5)
