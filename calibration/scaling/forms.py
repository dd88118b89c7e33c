"""Is this the right form? Other laws on the same runs, and the law's misfit against the scatter of repeated settings."""

from dataclasses import dataclass
from typing import Any

from calibration.scaling.backtest import SAME_COMPUTE
from calibration.scaling.baselines import no_floor
from calibration.scaling.fit import FitError, fit
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.objective import Objective
from calibration.scaling.points import Floats, Points
from configuration.errors import ConfigurationError

HELD_OUT_SHARE = 0.25
"""Runs of most compute that a form is judged by; runs of one budget stay together, so that it may be more."""

RANDOM_STARTS = 8
NO_FLOOR = "no floor"


@dataclass(frozen=True)
class Form:
    """One form: its ``parameters``, mean error on the runs of most compute when fitted to the others, and AICc of the residuals of all (None where too few).

    ``failure`` says why a law has no numbers here.
    """

    law: str
    parameters: int
    held_out_error: float | None
    aicc: float | None
    failure: str | None = None


@dataclass(frozen=True)
class LackOfFit:
    """F test of a law's misfit against pure error, the scatter of runs equal in N, D and E (Draper and Smith 1998, section 2.1).

    ``pure_error_sd`` of ln L; ``f`` mean square of the misfit over that of pure error; ``p_value`` of so large an f were the law true.
    """

    pure_error_sd: float
    pure_error_freedom: int
    misfit_freedom: int
    f: float
    p_value: float


def compare(points: Points, laws: "tuple[FittedLaw, ...]", objective: Objective, seed: int = 0) -> tuple[Form, ...]:
    """``laws`` and a power law without a floor on ``points``, the least held-out error first."""
    import numpy as np

    cut = min(np.quantile(points.log_c, 1 - HELD_OUT_SHARE) + SAME_COMPUTE, points.log_c.max() - SAME_COMPUTE)
    seen, asked = points.take(points.log_c <= cut), points.take(points.log_c > cut)
    axes = sum(bool(np.ptp(getattr(points, f"log_{variable}")) > 0) for variable in "nde")
    if not len(seen):
        sizes = {NO_FLOOR: 1 + axes} | {law.name: len(law.parameters) for law in laws}
        return tuple(Form(name, parameters, None, None, "all runs have the same compute") for name, parameters in sizes.items())
    forms = [Form(NO_FLOOR, 1 + axes, _error(asked, no_floor(seen, asked)), _aicc(points.log_loss - no_floor(points, points), 1 + axes))]
    for law in laws:
        bare = Objective(objective.delta, {name: prior for name, prior in objective.priors.items() if name in {each.name for each in law.parameters}})
        try:
            held_out = fit(seen, law, bare, seed=seed, random_starts=RANDOM_STARTS)
            whole = fit(points, law, bare, seed=seed, random_starts=RANDOM_STARTS)
        except (ConfigurationError, FitError) as failure:
            forms.append(Form(law.name, len(law.parameters), None, None, str(failure)))
            continue
        error = _error(asked, law.log_loss(held_out.theta, asked))
        forms.append(Form(law.name, len(law.parameters), error, _aicc(whole.residuals, len(law.parameters))))
    return tuple(sorted(forms, key=lambda form: float("inf") if form.held_out_error is None else form.held_out_error))


def lack_of_fit(points: Points, residuals: Floats, parameters: int) -> LackOfFit | None:
    """Test ``residuals`` [n] of a law of so many ``parameters``; None where no setting is repeated or no freedom is left."""
    import numpy as np
    from scipy.stats import f as f_distribution

    settings = np.round(np.stack([points.log_n, points.log_d, points.log_u, points.log_e, points.log_g], axis=1), 3)
    _, group = np.unique(settings, axis=0, return_inverse=True)
    group = group.ravel()
    means = np.bincount(group, residuals) / np.bincount(group)
    pure = float(((residuals - means[group]) ** 2).sum())
    pure_freedom, misfit_freedom = len(residuals) - len(means), len(means) - parameters
    if pure_freedom < 1 or misfit_freedom < 1 or pure == 0:
        return None
    misfit = float((residuals**2).sum()) - pure
    ratio = misfit / misfit_freedom / (pure / pure_freedom)
    return LackOfFit(float(np.sqrt(pure / pure_freedom)), pure_freedom, misfit_freedom, ratio, float(f_distribution.sf(ratio, misfit_freedom, pure_freedom)))


def _error(asked: Points, predicted: Floats) -> float:
    import numpy as np

    return float(np.abs(np.expm1(predicted - asked.log_loss)).mean())


def _aicc(residuals: Floats, parameters: int) -> float | None:
    """Akaike's criterion for normal residuals, corrected for few rows (Hurvich and Tsai 1989); the variance counts as a parameter."""
    import numpy as np

    rows, k = len(residuals), parameters + 1
    mean_square: Any = (residuals**2).mean()
    return float(rows * np.log(mean_square) + 2 * k + 2 * k * (k + 1) / (rows - k - 1)) if rows > k + 1 and mean_square > 0 else None
