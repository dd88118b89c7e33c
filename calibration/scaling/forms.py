"""Is this the right form? Other laws on the same runs, and the law's misfit against the scatter of repeated settings."""

from dataclasses import dataclass, replace
from typing import Any

from calibration.scaling.baselines import no_floor
from calibration.scaling.fit import Fit, FitError, fit
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.objective import Objective
from calibration.scaling.points import SAME_COMPUTE, Floats, Points
from configuration.errors import ConfigurationError

HELD_OUT_SHARE = 0.25
"""Runs of most compute that a form is judged by; runs of one budget stay together, so that it may be more."""

RANDOM_STARTS = 8
NO_FLOOR = "no floor"
NOTHING_TO_ASK = "all runs have the same compute"


@dataclass(frozen=True)
class Form:
    """One form: its ``parameters``, mean error on the runs of most compute when fitted to the others, and AICc of the residuals of all (None where too few).

    ``held_out_se`` is the standard error of that mean over the runs, taken as independent; the error itself where there is one run, which tells no scatter.
    ``failure`` says why a law has no numbers here.
    """

    law: str
    parameters: int
    held_out_error: float | None
    held_out_se: float | None
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

    seen, asked = _divided(points)
    parameters = 1 + sum(bool(np.ptp(getattr(points, f"log_{variable}")) > 0) for variable in "nde")
    if len(seen):
        forms = [Form(NO_FLOOR, parameters, *_error(asked, no_floor(seen, asked)), _aicc(points.log_loss - no_floor(points, points), parameters))]
    else:
        forms = [Form(NO_FLOOR, parameters, None, None, None, NOTHING_TO_ASK)]
    for law, form in zip(laws, judged(points, laws, objective, seed), strict=True):
        whole = attempt(points, law, objective, seed) if form.failure is None else form.failure
        forms.append(failed(law, whole) if isinstance(whole, str) else replace(form, aicc=_aicc(whole.residuals, form.parameters)))
    return tuple(sorted(forms, key=lambda form: float("inf") if form.held_out_error is None else form.held_out_error))


def judged(points: Points, laws: "tuple[FittedLaw, ...]", objective: Objective, seed: int = 0) -> tuple[Form, ...]:
    """``laws``, in their order, by their error on the runs of most compute when fitted to the others; without AICc."""
    seen, asked = _divided(points)
    forms = []
    for law in laws:
        found = attempt(seen, law, objective, seed) if len(seen) else NOTHING_TO_ASK
        forms.append(
            failed(law, found) if isinstance(found, str) else Form(law.name, len(law.parameters), *_error(asked, law.log_loss(found.theta, asked)), None)
        )
    return tuple(forms)


def attempt(points: Points, law: FittedLaw, objective: Objective, seed: int = 0) -> Fit | str:
    """The fit of ``law`` with those of the priors that are its own, or why there is none."""
    names = {parameter.name for parameter in law.parameters}
    priors = {name: prior for name, prior in objective.priors.items() if name in names}
    try:
        return fit(points, law, replace(objective, priors=priors), seed=seed, random_starts=RANDOM_STARTS)
    except (ConfigurationError, FitError) as error:
        return str(error)


def failed(law: FittedLaw, reason: str) -> Form:
    """``law`` without numbers."""
    return Form(law.name, len(law.parameters), None, None, None, reason)


def _divided(points: Points) -> tuple[Points, Points]:
    """The runs that forms are fitted to, and those of most compute that they are judged on."""
    above = points.log_c > judging_cut(points)
    return points.take(~above), points.take(above)


def judging_cut(points: Points) -> float:
    """ln FLOPs above which runs judge the forms fitted to the others."""
    import numpy as np

    return float(min(np.quantile(points.log_c, 1 - HELD_OUT_SHARE) + SAME_COMPUTE, points.log_c.max() - SAME_COMPUTE))


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


def _error(asked: Points, predicted: Floats) -> tuple[float, float]:
    """Mean relative error, and its standard error."""
    import numpy as np

    errors = np.abs(np.expm1(predicted - asked.log_loss))
    mean = float(errors.mean())
    return mean, float(errors.std(ddof=1) / np.sqrt(len(errors))) if len(errors) > 1 else mean


def _aicc(residuals: Floats, parameters: int) -> float | None:
    """Akaike's criterion for normal residuals, corrected for few rows (Hurvich and Tsai 1989); the variance counts as a parameter."""
    import numpy as np

    rows, k = len(residuals), parameters + 1
    mean_square: Any = (residuals**2).mean()
    return float(rows * np.log(mean_square) + 2 * k + 2 * k * (k + 1) / (rows - k - 1)) if rows > k + 1 and mean_square > 0 else None
