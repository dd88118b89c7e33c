"""Figures of a study, each drawn into an empty matplotlib figure: residuals, parity, isoFLOPs on the fitted surface, slopes of the law."""

import math
from typing import TYPE_CHECKING, Any

from calibration.scaling.cross_checks import isoflop_optima
from calibration.scaling.document import Findings
from calibration.scaling.points import Points, points_at
from calibration.scaling.verdict import elasticity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
"""Okabe and Ito, "Color Universal Design" (2008)."""

AXES = {"log_n": "parameters N", "log_d": "tokens D", "log_c": "training FLOPs C", "log_e": "experts E"}


def draw_residuals(figure: "Figure", findings: Findings) -> None:
    """Relative error of every run against N, D, C and, where it varies, E: a slope or a bend means a wrong form."""
    import numpy as np
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator

    fitted, held_out = findings.fit.points, findings.held_out
    axes = [axis for axis in AXES if axis != "log_e" or np.ptp(fitted.log_e) > 0]
    for place, axis in zip(figure.subplots(1, len(axes), sharey=True, squeeze=False)[0], axes, strict=True):
        for points, colour, marker, label in _groups(fitted, held_out):
            error = 100 * np.expm1(findings.fit.law.log_loss(findings.fit.theta, points) - points.log_loss)
            place.plot(np.exp(getattr(points, axis)), error, marker, color=colour, label=label, markersize=4, alpha=0.7)
        place.axhline(0, color="black", linewidth=0.8)
        place.set_xscale("log")
        place.xaxis.set_minor_formatter("")
        if np.ptp(getattr(fitted, axis)) < math.log(10):
            # Powers of ten alone may leave the axis without a number.
            place.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            place.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf)))
        place.set_xlabel(AXES[axis])
    figure.axes[0].set_ylabel("predicted less measured loss (%)")
    figure.axes[0].legend()


def draw_parity(figure: "Figure", findings: Findings) -> None:
    """Predicted against measured loss; held-out runs, which the fit has not seen, are marked."""
    import numpy as np

    place = figure.subplots()
    ends: list[float] = []
    for points, colour, marker, label in _groups(findings.fit.points, findings.held_out):
        measured, predicted = np.exp(points.log_loss), findings.fit.law.loss(findings.fit.theta, points)
        place.plot(measured, predicted, marker, color=colour, label=label, markersize=4, alpha=0.7)
        ends += [*measured, *predicted]
    line = [min(ends), max(ends)]
    place.plot(line, line, color="black", linewidth=0.8)
    place.set_xlabel("measured loss (nats per token)")
    place.set_ylabel("predicted loss (nats per token)")
    place.legend()


def draw_isoflops(figure: "Figure", findings: Findings) -> None:
    """Loss over the plane of N and D as the law has it, lines of equal compute, the runs, the law's optimum and the lowest points of isoFLOP parabolas.

    The plane and the parabolas are those of the experts of the largest fitted run. Raises ValueError for a law without N or D.
    """
    import numpy as np

    law, points = findings.fit.law, findings.fit.points
    if not {"n", "d"} <= set(law.variables):
        raise ValueError(f"law {law.name} has no plane of N and D")
    place = figure.subplots()
    ranges = (np.concatenate([getattr(group, axis) for group in (points, findings.held_out)]) for axis in ("log_n", "log_d"))
    n, d = np.meshgrid(*(np.linspace(logs.min() - 0.5, logs.max() + 0.5, 60) for logs in ranges))
    grid = _around(points, n.ravel(), d.ravel())
    loss = law.loss(findings.fit.theta, grid).reshape(n.shape)
    # Before anything is drawn: labels of contours cut their gaps in the axes of then.
    limits = {f"{axis}lim": (math.exp(logs.min()), math.exp(logs.max())) for axis, logs in (("x", n), ("y", d))}
    place.set(xscale="log", yscale="log", xlabel=AXES["log_n"], ylabel=AXES["log_d"], **limits)
    contours = place.contour(np.exp(n), np.exp(d), loss, levels=np.quantile(loss, np.linspace(0.05, 0.9, 9)), colors=GREY, linewidths=0.8)
    place.clabel(contours, fmt="%.2f", fontsize=8)
    balance = np.log(elasticity(law, findings.fit.theta, grid, "n") / elasticity(law, findings.fit.theta, grid, "d")).reshape(n.shape)
    if balance.min() < 0 < balance.max():
        place.contour(np.exp(n), np.exp(d), balance, levels=[0.0], colors=BLUE)
        place.plot([], [], color=BLUE, label="compute-optimal by the law")
    for log_c in np.linspace(points.log_c.min(), points.log_c.max(), 6):
        sizes = np.exp(n[0])
        place.plot(sizes, math.exp(log_c) / (6 * sizes), ":", color="black", linewidth=0.6)
    for group, colour, marker, label in _groups(points, findings.held_out):
        place.plot(np.exp(group.log_n), np.exp(group.log_d), marker, color=colour, label=label, markersize=3)
    log_c, log_n = isoflop_optima(points.take(np.abs(points.log_e - grid.log_e[0]) < 1e-6))
    if len(log_c):
        place.plot(np.exp(log_n), np.exp(log_c - log_n) / 6, "^", color=GREEN, label="lowest point of an isoFLOP parabola")
    place.legend(fontsize=8)


def draw_slopes(figure: "Figure", findings: Findings) -> None:
    """Loss gained per doubling of each quantity the law knows, along its own axis, the others at the verdict's point."""
    import numpy as np

    law, verdict, points = findings.fit.law, findings.verdict, findings.fit.points
    variables = [name for name in ("n", "d", "e") if name in law.variables]
    for place, variable in zip(figure.subplots(1, len(variables), sharey=True, squeeze=False)[0], variables, strict=True):
        logs = getattr(points, f"log_{variable}")
        x = np.linspace(logs.min(), logs.max() + math.log(4), 50)
        here = {"n": np.full(50, math.log(verdict.n)), "d": np.full(50, math.log(verdict.d)), variable: x}
        line = _around(points, here["n"], here["d"], x if variable == "e" else np.full(50, math.log(verdict.experts)))
        slope = math.log(2) * elasticity(law, findings.fit.theta, line, variable)
        drawn = findings.ensemble.widened(math.log(2) * elasticity(law, findings.ensemble.refits, line, variable), slope)
        place.fill_between(np.exp(x), *np.quantile(drawn, [0.025, 0.975], axis=0), color=BLUE, alpha=0.2, linewidth=0)
        place.plot(np.exp(x), slope, color=BLUE)
        place.axvspan(math.exp(logs.min()), math.exp(logs.max()), color=GREY, alpha=0.1, linewidth=0)
        place.set(xscale="log", xlabel=AXES[f"log_{variable}"])
    figure.axes[0].set_ylabel("loss gained per doubling (nats per token)")


def _groups(fitted: Points, held_out: Points) -> list[tuple[Points, str, str, str]]:
    groups = [(fitted, BLUE, "o", "fitted")]
    return [*groups, (held_out, VERMILLION, "s", "held out")] if len(held_out) else groups


def _around(points: Points, log_n: Any, log_d: Any, log_e: Any = None) -> Points:
    """Points of N and D with the experts of the largest run (or ``log_e``) and fresh tokens."""
    import numpy as np

    largest = int(points.log_c.argmax())
    experts = np.exp(points.log_e[largest] if log_e is None else log_e)
    return points_at(np.exp(log_n), np.exp(log_d), experts=experts, top_k=np.exp(points.log_k[largest]))


FIGURES = {"residuals": draw_residuals, "parity": draw_parity, "isoflops": draw_isoflops, "slopes": draw_slopes}
