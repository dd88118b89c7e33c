"""What a table of runs says about which to scale, in words."""

import math
from collections.abc import Sequence

from calibration.scaling.backtest import backtest_document
from calibration.scaling.choice import choice_notes
from calibration.scaling.document import Findings
from reports.scaling.logs import Curve
from reports.scaling.settings import Setting, flops_unit
from reports.scaling.slopes import CERTAIN, VARIABLES, Slope, Straightness, last_doublings, slopes
from simulator.units import show_count

FAR = 2.5
"""Times the compute from which a forecast is one."""

STRAIGHT = 0.9
"""A line that explains less of the variance than this is none."""


def starts(curves: Sequence[Curve]) -> str:
    """Whether every run starts near ln V, the loss of a model that gives all tokens the same probability."""
    known = [curve for curve in curves if curve.starts_near is not None]
    if not known:
        return "Where runs start cannot be judged: the table has no vocabulary."
    far = [curve for curve in known if not curve.starts_near]
    low, high = min(curve.start for curve in known), max(curve.start for curve in known)
    uniform = sorted({math.log(curve.vocabulary or 1) for curve in known})
    text = f"ln V = {', '.join(f'{value:.3f}' for value in uniform)}, the loss of knowing nothing: runs start between {low:.3f} and {high:.3f} nats per token."
    if far:
        return f"{text} Not near it: {', '.join(f'{curve.run} ({curve.start:.3f})' for curve in far)}."
    return f"All {len(known)} runs start near {text}"


def which(settings: Sequence[Setting]) -> str:
    """Which of parameters and tokens the last doublings speak for."""
    both = last_doublings(settings)
    if both is not None:
        return _compared(*both)
    varied = [variable for variable in VARIABLES if slopes(settings, variable)]
    if len(varied) == 1:
        other = "tokens" if varied[0] == "parameters" else "parameters"
        steep = max(slopes(settings, varied[0]), key=lambda slope: slope.high.flops)
        return f"Only {varied[0]} were varied by themselves: {_told(steep)}. Which to scale needs runs that differ in {other} alone."
    return "No two runs differ in parameters alone or in tokens alone: local slopes cannot be told."


def _compared(in_n: Slope, in_d: Slope) -> str:
    end = in_n.high
    told = f"Up to {show_count(end.n)} parameters and {show_count(end.d)} tokens, {_told(in_n)} and {_told(in_d)}."
    difference = in_n.gain - in_d.gain
    more, less = ("parameters", "tokens") if difference > 0 else ("tokens", "parameters")
    if in_n.error is None or in_d.error is None:
        return f"{told} Twice the {more} gained more than twice the {less}; the table has no errors to say how certain that is."
    certainty = abs(difference) / math.hypot(in_n.error, in_d.error) if in_n.error or in_d.error else math.inf
    if certainty < CERTAIN:
        return f"{told} The two cannot be told apart ({certainty:.1f} standard errors)."
    return f"{told} The steeper slope is that of {more} ({certainty:.1f} standard errors): scale {more} next."


def _told(slope: Slope) -> str:
    error = "" if slope.error is None else f" ± {slope.error:.4f}"
    scale, unit = flops_unit(slope.high.flops)
    paid = "" if slope.gain_per_flop is None else f" ({slope.gain_per_flop * scale:.3g} per {unit})"
    return f"a doubling of {slope.variable} gained {slope.gain:.4f}{error} nats per token{paid}"


def straight(found: Straightness) -> str:
    """Whether loss against a quantity is nearer a line in it or in its logarithm."""
    low, high = found.series[0], found.series[-1]
    values = (low.n, high.n) if found.variable == "parameters" else (low.d, high.d)
    nearer = "the logarithm of the count" if found.logarithmic > found.plain else "the count itself"
    bent = max(found.logarithmic, found.plain) < STRAIGHT
    said = "the loss is a straight line neither in the count nor in its logarithm" if bent else f"the loss is nearer a straight line in {nearer}"
    return (
        f"Over {len(found.series)} settings from {show_count(values[0])} to {show_count(values[1])} {found.variable} {said}: "
        f"R² = {found.plain:.4f} against the count, {found.logarithmic:.4f} against its logarithm."
    )


def law(found: Findings | str) -> str:
    """The verdict of the fitted law, or why there is none."""
    if isinstance(found, str):
        return f"No law fitted: {found}."
    why = "" if found.choice is None else f" ({'; '.join([found.choice.words, *choice_notes(found.choice, found.fit.points)])})"
    return f"Fitted {found.fit.law.formula}{why}: {found.verdict.words}"


def trust(found: Findings | str) -> str | None:
    """How well smaller runs foretold larger ones; None where nothing could be tested."""
    if isinstance(found, str) or not found.backtest.rolling:
        return None
    rolling = backtest_document(found.backtest)["rolling"]
    far = [part for part in rolling["by_factor"] if part["factor_above"] >= FAR and part["factor_up_to"]][:2]
    errors = [f"{part['mean_absolute_relative_error']:.1%} at {part['factor_above']:g} to {part['factor_up_to']:g} times the compute" for part in far]
    said = f"Forecasts of larger runs from smaller ones err by {' and '.join(errors)}" if errors else "Forecasts of larger runs from smaller ones are few"
    better = "better than" if rolling["beats_baselines"] else "not better than"
    return (
        f"{said}: {better} a law without floor ({rolling['no_floor_error']:.1%} in all, the law {rolling['mean_absolute_relative_error']:.1%}) and the nearest "
        f"run ({rolling['nearest_run_error']:.1%}). {rolling['coverage']:.0%} of {rolling['runs']} lie in their 80 % intervals."
    )
