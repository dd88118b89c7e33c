"""Tables of the scaling page."""

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

from calibration.scaling.backtest import backtest_document
from calibration.scaling.document import Findings, coefficient_intervals, covariance
from reports.page import Table
from reports.scaling.logs import Curve
from reports.scaling.settings import Setting, flops_unit
from reports.scaling.slopes import Slope
from simulator.units import show_count

LONG = 24
"""A table of more rows is folded."""


def settings(found: Sequence[Setting]) -> Table:
    """Every setting with its loss."""
    rows = tuple(
        (
            show_count(each.n), show_count(each.d), f"{each.experts[0]:g}", str(len(each.runs)), f"{each.flops:.3e}", f"{each.loss:.4f}",
            "" if each.error is None else f"{each.error:.4f}",
        )
        for each in found
    )  # fmt: skip
    return Table("Settings", ("N", "D", "experts", "runs", "training FLOPs", "validation loss", "standard error"), rows, len(rows) > LONG)


def gains(found: Sequence[Slope]) -> Table:
    """Every local slope."""
    scale, unit = flops_unit(max(slope.high.flops for slope in found))
    rows = tuple(
        (
            slope.variable, f"{slope.low.experts[0]:g}", show_count(slope.low.n), show_count(slope.high.n), show_count(slope.low.d), show_count(slope.high.d),
            f"{slope.gain:.4f}",
            "" if slope.error is None else f"{slope.error:.4f}", "" if slope.gain_per_flop is None else f"{slope.gain_per_flop * scale:.4g}",
        )
        for slope in found
    )  # fmt: skip
    headers = ("more", "experts", "N from", "to", "D from", "to", "nats per doubling", "standard error", f"nats per {unit}")
    return Table("Local slopes: loss gained between neighbours", headers, rows, len(rows) > LONG)


def starts(curves: Sequence[Curve]) -> Table:
    """First and last losses of the logs."""
    judged = {True: "yes", False: "no", None: ""}
    rows = tuple((curve.run, f"{curve.start:.4f}", judged[curve.starts_near], f"{curve.losses[-1]:.4f}", f"{curve.tokens[-1]:,.0f}") for curve in curves)
    return Table("Training losses, nats per token", ("run", "first logged", "near ln V", "last logged", "tokens"), rows)


def forecasts(found: Findings) -> tuple[Table, ...]:
    """How runs of more compute were foretold: those held out, and those above every rolling cut, by how much more compute they took."""
    document = backtest_document(found.backtest)
    level = f"in {document['level']:.0%} interval"
    headers = ("times the compute", "runs", "mean error", "bias", level, "law without floor", "nearest run")
    titles = ("Forecasts of the runs held out", "Forecasts of runs above rolling cuts, from those below")
    parts = [document["held_out"], document["rolling"]]
    shown = [part is not None and part["runs"] > 0 for part in parts]
    return tuple(
        Table(title, headers, tuple(_forecast(each) for each in (*part["by_factor"], part))) for title, part in compress(zip(titles, parts, strict=True), shown)
    )


def _forecast(part: Mapping[str, Any]) -> tuple[str, ...]:
    top = part.get("factor_up_to")
    name = "all" if "by_factor" in part else f"{part['factor_above']:g} to {top:g}" if top else f"above {part['factor_above']:g}"
    errors = (f"{part[key]:.2%}" for key in ("no_floor_error", "nearest_run_error"))
    return (name, str(part["runs"]), f"{part['mean_absolute_relative_error']:.2%}", f"{part['bias']:+.2%}", f"{part['coverage']:.0%}", *errors)


def law(found: Findings) -> tuple[Table, ...]:
    """Coefficients with intervals, and what doublings gain by the law."""
    intervals = coefficient_intervals(found.fit, found.ensemble)
    coefficients = tuple((name, f"{value:.17g}", *(f"{edge:.4g}" for edge in intervals[name])) for name, value in found.fit.coefficients.items())
    scale, unit = flops_unit(6 * found.verdict.n * found.verdict.d)
    gained = tuple(
        (
            gain.doubled,
            f"{gain.nats:.4f}",
            *(f"{edge:.4f}" for edge in gain.interval),
            "" if gain.nats_per_flop is None else f"{gain.nats_per_flop * scale:.4g}",
        )
        for gain in found.verdict.gains
    )
    spread = covariance(found.fit, found.ensemble)
    names = spread["parameters"]
    matrix = tuple((name, *(f"{value:.17g}" for value in row)) for name, row in zip(names, spread["matrix"], strict=True))
    forms = tuple(
        (each.law, str(each.parameters), each.failure or f"{each.held_out_error:.2%}", "" if each.aicc is None else f"{each.aicc:.1f}") for each in found.forms
    )
    tables = [
        Table(f"Coefficients of law {found.fit.law.name}", ("", "value", "95 % from", "to"), coefficients),
        Table("Their covariance over the refits", ("", *names), matrix),
        Table("Forms on the same runs, judged on the quarter of most compute", ("law", "parameters", "mean error there", "AICc of all"), forms),
        Table("Doublings by the law, from the run of most compute", ("twice", "nats per token", "95 % from", "to", f"nats per {unit}"), gained),
    ]
    if found.verdict.next_runs:
        rows = tuple((run.target, show_count(run.n), show_count(run.d), f"{run.flops:.3g}", f"{run.variance_removed:.0%}") for run in found.verdict.next_runs)
        tables.append(Table("The run that would teach most", ("to know", "N", "D", "FLOPs", "variance removed"), rows))
    variants = tuple(
        (each.objective, *((f"{value:.4g}" if value is not None else "") for value in (each.loss, each.rho)), each.failure or "") for each in found.sensitivity
    )
    tables.append(Table("The same law under other objectives, at the run of most compute", ("objective", "loss", "rho", "failure"), variants))
    if found.excluded:
        tables.append(Table("Runs that the fit leaves out", ("run", "why"), tuple((each.run, each.reason) for each in found.excluded)))
    return tuple(tables)
