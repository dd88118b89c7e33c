"""Tables of the scaling page."""

from collections.abc import Sequence

from calibration.scaling.document import Findings, coefficient_intervals, covariance
from reports.page import Table
from reports.scaling.logs import Curve
from reports.scaling.settings import Setting, flops_unit
from reports.scaling.slopes import Slope
from simulator.units import show_count


def settings(found: Sequence[Setting]) -> Table:
    """Every setting with its loss."""
    rows = tuple(
        (
            show_count(each.n), show_count(each.d), f"{each.experts[0]:g}", str(len(each.runs)), f"{each.flops:.3e}", f"{each.loss:.4f}",
            "" if each.error is None else f"{each.error:.4f}",
        )
        for each in found
    )  # fmt: skip
    return Table("Settings", ("N", "D", "experts", "runs", "training FLOPs", "validation loss", "standard error"), rows)


def gains(found: Sequence[Slope]) -> Table:
    """Every local slope."""
    scale, unit = flops_unit(max(slope.high.flops for slope in found))
    rows = tuple(
        (
            slope.variable, show_count(slope.low.n), show_count(slope.high.n), show_count(slope.low.d), show_count(slope.high.d), f"{slope.gain:.4f}",
            "" if slope.error is None else f"{slope.error:.4f}", "" if slope.gain_per_flop is None else f"{slope.gain_per_flop * scale:.4g}",
        )
        for slope in found
    )  # fmt: skip
    headers = ("more", "N from", "to", "D from", "to", "nats per doubling", "standard error", f"nats per {unit}")
    return Table("Local slopes: loss gained between neighbours", headers, rows)


def starts(curves: Sequence[Curve]) -> Table:
    """First and last losses of the logs."""
    judged = {True: "yes", False: "no", None: ""}
    rows = tuple((curve.run, f"{curve.start:.4f}", judged[curve.starts_near], f"{curve.losses[-1]:.4f}", f"{curve.tokens[-1]:,.0f}") for curve in curves)
    return Table("Training losses, nats per token", ("run", "first logged", "near ln V", "last logged", "tokens"), rows)


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
        Table(f"Coefficients of {found.fit.law.formula}", ("", "value", "95 % from", "to"), coefficients),
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
