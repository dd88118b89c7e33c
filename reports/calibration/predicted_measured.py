"""Scatter of predicted against measured step times, with bands."""

import numpy as np
from matplotlib.figure import Figure

from calibration.device.validation import Validation
from reports.drawing import BLACK, BLUE, GREY

BANDS = (0.25, 0.10)
SHADES = ("#e9eef3", "#cfdbe6")


def draw(figure: Figure, found: Validation) -> None:
    """Steps as points with the half-spread of their repeats; the single FLOP rate, where one was fitted, hollow; bands of 10 and 25 %."""
    axes = figure.add_subplot()
    measured = np.array([step.measured_s for step in found.steps])
    predicted = np.array([step.predicted_s for step in found.steps])
    ends = np.array([min(measured.min(), predicted.min()) / 1.6, max(measured.max(), predicted.max()) * 1.6])
    for band, shade in zip(BANDS, SHADES, strict=True):
        axes.fill_between(ends, ends * (1 - band), ends * (1 + band), color=shade, linewidth=0, label=f"within {band:.0%}")
    axes.plot(ends, ends, color=BLACK, linewidth=1, label="equal")
    if found.flops_per_s is not None:
        single = [step.measured_s * (1 + (step.single_rate or 0.0)) for step in found.steps]
        axes.plot(measured, single, color=GREY, marker="s", markerfacecolor="none", linestyle="none", label="one FLOP rate")
    spread = [step.half_spread * step.measured_s for step in found.steps]
    axes.errorbar(measured, predicted, xerr=spread, color=BLUE, marker="o", linestyle="none", capsize=2, label="profile")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.set_xlabel("measured time of one step (s)")
    axes.set_ylabel("predicted time of one step (s)")
    figure.legend(loc="outside right center", frameon=False)
