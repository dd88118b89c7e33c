"""How well a law foretells runs it has not seen: fitted below a compute cut, asked above it, cut after cut.

Sampling intervals know nothing of a wrong form. Forecasts inside the runs that are known do (split conformal prediction, Lei et al. 2018, arXiv 1604.04173,
over the rolling origin of time-series forecasts). The quantile, at the intervals' level, of their errors as shares of their own half widths is what
intervals are multiplied by; that of the errors themselves from the last cuts, which grow with the distance (see bootstrap.farther), is the half width that
none goes under: an interval narrower than the newest forecasts were wrong promises too much. Half widths themselves come from draws and from refits without
a block of neighbouring runs (see blocks), which do not shrink with the rows where the form is wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from calibration.scaling.baselines import nearest_run, no_floor
from calibration.scaling.blocks import block_refits, jackknife_sd
from calibration.scaling.bootstrap import FORECAST_LEVEL, RUNS_PER_PARAMETER, Widening, bootstrap, central, farther, greatest, normal_half_width, spread_noise
from calibration.scaling.choice import Auto, candidates_for, taken
from calibration.scaling.fit import FitError, fit
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.objective import Objective
from calibration.scaling.points import SAME_COMPUTE, Floats, Points
from configuration.errors import ConfigurationError

ORIGINS = 5
RESAMPLES = 100
RANDOM_STARTS = 8
FIRST_SHARE, LAST_SHARE = 0.5, 0.9
"""The first cut leaves RUNS_PER_PARAMETER rows a parameter below it (of the largest law that may be chosen), in small tables this share of them; the last
LAST_SHARE."""

NESTED_SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the rows that are known, below the cuts from which the widening is learnt; as many as there are cuts in all."""

FACTORS = (1.0, 2.5, 6.0, 16.0, 60.0, math.inf)
"""Ends of the bins of extrapolation factor: training FLOPs over those of the cut."""

LAST_CUTS = 3
"""Of the cuts below which the widening is learnt, whose forecasts' errors no interval is narrower than; assumed."""

FEWEST_SCORES = 10
"""With fewer forecasts inside the known runs a quantile of them says nothing: intervals stay as sampled."""

NESTED_STARTS = 4


@dataclass(frozen=True)
class Forecasts:
    """Forecasts [m] of the runs above one cut by ``law`` fitted below it.

    ``points`` those runs; ``residual`` ln measured less ln predicted; ``low`` and ``high`` ends of the interval at FORECAST_LEVEL of that residual, sampled
    and not widened; ``no_floor`` and ``nearest`` residuals of the baselines.
    """

    law: str
    cut_flops: float
    fitted_rows: int
    points: Points
    residual: Floats
    low: Floats
    high: Floats
    no_floor: Floats
    nearest: Floats

    @property
    def factor(self) -> Floats:
        """FLOPs of each run over those of the cut [m]."""
        import numpy as np

        return np.exp(self.points.log_c) / self.cut_flops

    def covered(self, widening: Widening) -> Floats:
        """Which runs lie in their intervals [m], widened so."""
        import numpy as np

        low, high = widening.ends(self.low, self.high, self.points, FORECAST_LEVEL)
        return np.asarray((low <= self.residual) & (self.residual <= high))


@dataclass(frozen=True)
class Backtest:
    """Forecasts of the held-out runs (``held_out``) and of every rolling cut, with the widening that the runs below each of them ask for.

    ``widening`` is what the fitted runs ask for; ``skipped`` cuts below which the law could not be fitted, with the reason.
    """

    held_out: Forecasts | None
    held_out_widening: Widening
    rolling: tuple[Forecasts, ...]
    rolling_widening: tuple[Widening, ...]
    widening: Widening
    skipped: tuple[str, ...]


def backtest(points: Points, law: FittedLaw | Auto, objective: Objective, *, cut_flops: float | None = None, origins: int = ORIGINS, seed: int = 0) -> Backtest:
    """Test ``law`` on ``points``; Auto is tested with its choosing, made anew below every cut with the runs below it.

    With ``cut_flops`` the runs above it are held out, and cuts roll below it. Without, the run of most compute is held out, and cuts roll over all runs.
    """

    log_cut = _below_largest(points) if cut_flops is None else math.log(cut_flops)
    seen = points if cut_flops is None else points.take(points.log_c <= log_cut)
    rolling: list[Forecasts] = []
    skipped: list[str] = []
    for log_origin in _origins(seen, law, origins):
        _add(rolling, skipped, seen, law, objective, log_origin, seed)
    held_out: list[Forecasts] = []
    if bool((points.log_c > log_cut).any()):
        _add(held_out, skipped, points, law, objective, log_cut, seed)

    def known(forecasts: Forecasts) -> Widening:
        return widening(points.take(points.log_c <= math.log(forecasts.cut_flops)), law, objective, seed) if origins else Widening()

    return Backtest(
        held_out=held_out[0] if held_out else None,
        held_out_widening=known(held_out[0]) if held_out else Widening(),
        rolling=tuple(rolling),
        rolling_widening=tuple(known(forecasts) for forecasts in rolling),
        widening=widening(seen, law, objective, seed) if origins else Widening(),
        skipped=tuple(skipped),
    )


def _below_largest(points: Points) -> float:
    import numpy as np

    below = points.log_c[points.log_c < points.log_c.max() - SAME_COMPUTE]
    return float(below.max()) + 0.5 * SAME_COMPUTE if len(below) else float(np.max(points.log_c))


def _origins(points: Points, law: FittedLaw | Auto, count: int) -> list[float]:
    """Cuts in ln FLOPs, lowest first; none that leaves no run above."""
    import numpy as np

    if count == 0:
        return []
    order = np.sort(points.log_c)
    most = max((len(candidate.parameters) for candidate in candidates_for(law, points)), default=len(order))
    first = min(RUNS_PER_PARAMETER * most, FIRST_SHARE * len(order))
    ranks = np.round(np.linspace(first, LAST_SHARE * len(order), count)).astype(int)
    cuts = {float(order[max(rank, 1) - 1]) + 0.5 * SAME_COMPUTE for rank in ranks}
    return sorted(cut for cut in cuts if cut < order[-1])


def _add(into: list[Forecasts], skipped: list[str], points: Points, law: FittedLaw | Auto, objective: Objective, log_cut: float, seed: int) -> None:
    try:
        into.append(forecasts_above(points, law, objective, log_cut, seed=seed))
    except (ConfigurationError, FitError) as error:
        skipped.append(f"cut at {math.exp(log_cut):.3g} FLOPs: {error}")


def forecasts_above(points: Points, law: FittedLaw | Auto, objective: Objective, log_cut: float, *, resamples: int = RESAMPLES, seed: int = 0) -> Forecasts:
    """Fit to the runs at or below ``log_cut`` (ln FLOPs), forecast those above.

    Raises ConfigurationError or FitError when the runs below do not determine the law.
    """
    seen, asked = points.take(points.log_c <= log_cut), points.take(points.log_c > log_cut)
    fitted, _ = taken(law, seen, objective, seed)
    found = fit(seen, fitted, objective, seed=seed, random_starts=RANDOM_STARTS)
    ensemble = bootstrap(found, resamples=resamples, seed=seed)
    predicted = fitted.log_loss(found.theta, asked)
    drawn = ensemble.spread(fitted.log_loss(ensemble.refits, asked), predicted) + ensemble.scatter(len(asked), seed)
    low, high = central(drawn - predicted, FORECAST_LEVEL)
    return Forecasts(
        law=fitted.name,
        cut_flops=math.exp(log_cut),
        fitted_rows=len(seen),
        points=asked,
        residual=asked.log_loss - predicted,
        low=low,
        high=high,
        no_floor=asked.log_loss - no_floor(seen, asked),
        nearest=asked.log_loss - nearest_run(seen, asked),
    )


def widening(points: Points, law: FittedLaw | Auto, objective: Objective, seed: int = 0) -> Widening:
    """What intervals of forecasts from ``points`` need to cover what they claim, learnt from forecasts inside ``points``.

    The factor is never below 1: a sample cannot promise less than it drew. Nothing is asked for when there are too few runs to learn from.
    """
    import numpy as np

    order = np.sort(points.log_c)
    cuts = {float(order[max(1, round(share * len(order))) - 1]) + 0.5 * SAME_COMPUTE for share in NESTED_SHARES}
    scores: list[Floats] = []
    errors: list[Floats] = []
    for log_cut in sorted(cut for cut in cuts if cut < order[-1]):
        seen, asked = points.take(points.log_c <= log_cut), points.take(points.log_c > log_cut)
        try:
            fitted, _ = taken(law, seen, objective, seed)
            nested = fit(seen, fitted, objective, seed=seed, random_starts=NESTED_STARTS)
        except (ConfigurationError, FitError):
            continue
        noise_sd = float(np.sqrt((spread_noise(nested) ** 2).mean()))
        sampled = np.hypot(jackknife_sd(fitted.log_loss(block_refits(nested), asked)), noise_sd)
        error = np.abs(asked.log_loss - fitted.log_loss(nested.theta, asked))
        scores.append(error / (normal_half_width(FORECAST_LEVEL) * np.maximum(sampled, 1e-12)))
        errors.append(error / farther(asked, greatest(seen)))
    factor, least = _at_level(scores), _at_level(errors[-LAST_CUTS:])
    return Widening(max(1.0, factor or 1.0), least or 0.0, None if least is None else greatest(points))


def _at_level(found: Sequence[Floats]) -> float | None:
    """Quantile of the scores at FORECAST_LEVEL, counting the forecast to come (the rank of conformal prediction); None of too few."""
    import numpy as np

    scores = np.sort(np.concatenate(found)) if found else np.array([])
    if len(scores) < FEWEST_SCORES:
        return None
    return float(scores[min(len(scores), math.ceil(FORECAST_LEVEL * (len(scores) + 1))) - 1])


def backtest_document(result: Backtest) -> dict[str, Any]:
    """As plain data: errors by extrapolation factor, signed bias, coverage as sampled and as widened, baselines."""
    held_out = None
    if result.held_out is not None:
        held_out = {
            "law": result.held_out.law,
            "above_flops": result.held_out.cut_flops,
            "fitted_rows": result.held_out.fitted_rows,
            "widening": asdict(result.held_out_widening),
            **_summary([result.held_out], [result.held_out_widening]),
        }
    rolling = {
        "cuts": [{"law": forecasts.law, "flops": forecasts.cut_flops, "fitted_rows": forecasts.fitted_rows, "widening": asdict(widening)}
                 for forecasts, widening in zip(result.rolling, result.rolling_widening, strict=True)],
        **_summary(result.rolling, result.rolling_widening),
    }  # fmt: skip
    return {"level": FORECAST_LEVEL, "widening": asdict(result.widening), "held_out": held_out, "rolling": rolling, "skipped": list(result.skipped)}


def _summary(forecasts: Sequence[Forecasts], widening: Sequence[Widening]) -> dict[str, Any]:
    import numpy as np

    if not forecasts:
        return {"runs": 0}
    factor, residual, no_floor_, nearest = (
        np.concatenate([getattr(each, name) for each in forecasts]) for name in ("factor", "residual", "no_floor", "nearest")
    )
    sampled = np.concatenate([each.covered(Widening()) for each in forecasts])
    covered = np.concatenate([each.covered(asked) for each, asked in zip(forecasts, widening, strict=True)])

    def row(chosen: Floats) -> dict[str, Any]:
        error = np.expm1(-residual[chosen])
        return {
            "runs": int(chosen.sum()),
            "mean_absolute_relative_error": float(np.abs(error).mean()),
            "bias": float(error.mean()),
            "coverage_sampled": float(sampled[chosen].mean()),
            "coverage": float(covered[chosen].mean()),
            "no_floor_error": float(np.abs(np.expm1(-no_floor_[chosen])).mean()),
            "nearest_run_error": float(np.abs(np.expm1(-nearest[chosen])).mean()),
        }

    whole = row(np.ones(len(factor), dtype=bool))
    bins = [
        {"factor_above": low, "factor_up_to": high if math.isfinite(high) else None, **row(inside)}
        for low, high in pairwise(FACTORS)
        if (inside := (factor > low) & (factor <= high)).any()
    ]
    beaten = whole["mean_absolute_relative_error"] < min(whole["no_floor_error"], whole["nearest_run_error"])
    return {**whole, "beats_baselines": beaten, "by_factor": bins}
