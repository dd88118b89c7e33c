"""Fit a law to points: refuse what cannot be identified, start from many places, and certify the optimum."""

from dataclasses import dataclass, replace

from calibration.scaling.descent import SMALL_STEEPNESS, Minimum, minimise
from calibration.scaling.laws.base import FittedLaw, log_sum_exp
from calibration.scaling.objective import Objective, Problem, limits, weighted_slopes
from calibration.scaling.points import Floats, Points
from configuration.errors import ConfigurationError

RANDOM_STARTS = 16
SAME_OPTIMUM = 1e-6
"""Two ends are one optimum when their objectives agree to this share."""

FEWEST_LEVELS = 3
"""A floor, a factor and an exponent cannot be told from fewer levels of a variable."""


class FitError(Exception):
    """A fit did not converge, or its starts disagree: there is no number to give."""


@dataclass(frozen=True)
class Certificate:
    """Why a fit can be believed.

    ``share_at_optimum`` of ``starts`` that ended there; ``steepness`` of the objective (see descent.SMALL_STEEPNESS); ``condition_number`` of the Jacobian with
    columns of length one, N and D centred; ``at_bound`` parameters that lie on the edge of their range: the table does not determine them.
    """

    starts: int
    share_at_optimum: float
    steepness: float
    condition_number: float
    at_bound: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """A fitted law. ``theta`` [p] for N in parameters and D in tokens; ``log_n0``, ``log_d0`` the centre that the fit worked around."""

    law: FittedLaw
    points: Points
    objective: Objective
    theta: Floats
    value: float
    temperature: float
    log_n0: float
    log_d0: float
    certificate: Certificate

    @property
    def coefficients(self) -> dict[str, float]:
        """Natural coefficients by name, all digits."""
        return self.law.coefficients_of(self.theta)

    @property
    def residuals(self) -> Floats:
        """ln of measured over predicted loss [n]."""
        return self.points.log_loss - self.law.log_loss(self.theta, self.points)

    def centred(self, theta: Floats) -> Floats:
        """Natural theta in the centred units of the fit."""
        return self.law.recentred(theta, self.log_n0, self.log_d0)

    def problem(self, weights: Floats, log_loss: Floats) -> Problem:
        """This fit again, in centred units, with other ``weights`` [R, n] or losses [R or 1, n]."""
        import numpy as np

        temperature = np.full(len(weights), self.temperature)
        return Problem(self.law, self.points.shifted(self.log_n0, self.log_d0), self.objective, weights, log_loss, temperature)


def fit(points: Points, law: FittedLaw, objective: Objective | None = None, *, seed: int = 0, random_starts: int = RANDOM_STARTS) -> Fit:
    """Fit ``law`` to ``points`` from the projected and ``random_starts`` random starts.

    Raises ConfigurationError when the points cannot determine the law, FitError when no start converges or fewer than two agree on the best end.
    """
    import numpy as np

    objective = objective or Objective()
    refuse_unidentifiable(points, law)
    check_priors(objective, law)
    log_n0, log_d0 = float(points.log_n.mean()), float(points.log_d.mean())
    centred = points.shifted(log_n0, log_d0)
    ranges = np.array([parameter.start for parameter in law.parameters])
    drawn = np.random.default_rng(seed).uniform(ranges[:, 0], ranges[:, 1], size=(random_starts, len(ranges)))
    starts = np.concatenate([law.projected_starts(centred), drawn])
    bare = replace(objective, priors={})
    minimum = minimise(_problem(law, centred, bare, len(starts), 0.0), _warmed(law, centred, starts))
    temperature = 0.0
    if objective.priors:
        temperature = _temperature(law, centred, objective, minimum.theta[int(np.argmin(minimum.value))])
        minimum = minimise(_problem(law, centred, objective, len(starts), temperature), minimum.theta)
    best = _best(minimum, law)
    theta = minimum.theta[best]
    return Fit(
        law=law,
        points=points,
        objective=objective,
        theta=law.recentred(theta, -log_n0, -log_d0),
        value=float(minimum.value[best]),
        temperature=temperature,
        log_n0=log_n0,
        log_d0=log_d0,
        certificate=_certificate(law, centred, minimum, best),
    )


def _warmed(law: FittedLaw, centred: Points, starts: Floats) -> Floats:
    """The starts after a few least-squares steps: a smooth way into the basin before the robust objective, which is nearly an absolute value."""
    return minimise(_problem(law, centred, Objective(float("inf")), len(starts), 0.0), starts, iterations=30).theta


def _problem(law: FittedLaw, centred: Points, objective: Objective, count: int, temperature: float) -> Problem:
    import numpy as np

    return Problem(law, centred, objective, np.ones((count, len(centred))), centred.log_loss[None], np.full(count, temperature))


def _temperature(law: FittedLaw, centred: Points, objective: Objective, theta: Floats) -> float:
    """Mean of influence times residual: the variance for least squares, delta times the mean deviation for a small delta.

    It is what the objective must be divided by to be a negative log likelihood at its own best scale.
    """
    residuals = centred.log_loss - law.log_loss(theta, centred)
    return float((objective.influence(residuals) * residuals).mean())


def _best(minimum: Minimum, law: FittedLaw) -> int:
    import numpy as np

    best = int(np.argmin(minimum.value))
    if not minimum.converged[best]:
        raise FitError(f"law {law.name}: the fit did not converge (gradient {minimum.steepness[best]:.1e}, at most {SMALL_STEEPNESS:g} allowed)")
    if _at_optimum(minimum, best).sum() < 2:
        raise FitError(f"law {law.name}: the fit's {len(minimum.value)} starts disagree on the optimum: the table does not determine this law")
    return best


def _at_optimum(minimum: Minimum, best: int) -> Floats:
    import numpy as np

    return np.asarray(minimum.value <= minimum.value[best] * (1 + SAME_OPTIMUM) + 1e-18)


def _certificate(law: FittedLaw, centred: Points, minimum: Minimum, best: int) -> Certificate:
    import numpy as np

    theta = minimum.theta[best]
    logs, slopes = law.terms(theta[None], centred)
    jacobian = weighted_slopes(log_sum_exp(logs)[1], slopes)[0]
    lengths = np.linalg.norm(jacobian, axis=0)
    idle = [parameter.name for parameter, length in zip(law.parameters, lengths, strict=True) if length == 0]
    if idle:
        raise FitError(f"law {law.name}: the table says nothing of {', '.join(idle)}")
    lower, upper = limits(law)
    edge = (theta <= lower) | (theta >= upper)
    return Certificate(
        starts=len(minimum.value),
        share_at_optimum=float(_at_optimum(minimum, best).mean()),
        steepness=float(minimum.steepness[best]),
        condition_number=float(np.linalg.cond(jacobian / lengths)),
        at_bound=tuple(parameter.name for parameter, on in zip(law.parameters, edge, strict=True) if on),
    )


def refuse_unidentifiable(points: Points, law: FittedLaw) -> None:
    """Raise ConfigurationError when ``points`` have too few levels of a variable, or too few distinct settings, for the law's parameters."""
    for variable in law.variables:
        found = levels(getattr(points, f"log_{variable}"))
        needed = law.levels.get(variable, FEWEST_LEVELS)
        if found < needed:
            raise ConfigurationError(f"law {law.name}: needs at least {needed} levels of {VARIABLES[variable]}, the table has {found}")
    reason = law.refusal(points)
    if reason is not None:
        raise ConfigurationError(f"law {law.name}: {reason}")
    settings = len({tuple(round(float(getattr(points, f"log_{variable}")[row]), 3) for variable in law.variables) for row in range(len(points))})
    if settings <= len(law.parameters):
        raise ConfigurationError(
            f"law {law.name}: {len(law.parameters)} parameters need more than {len(law.parameters)} distinct settings of "
            f"{', '.join(VARIABLES[variable] for variable in law.variables)}, the table has {settings}"
        )


VARIABLES = {"n": "N (parameters)", "d": "D (tokens)", "e": "E (experts)", "u": "U (unique tokens)", "g": "G (granularity)"}


def levels(logs: Floats, apart: float = 0.01) -> int:
    """Number of distinct values of a quantity given by its logarithms; values within 1 % are one level."""
    import numpy as np

    return 1 + int((np.diff(np.sort(logs)) > apart).sum())


def check_priors(objective: Objective, law: FittedLaw) -> None:
    """Raises ConfigurationError for a prior on what is no parameter of ``law``, or of no width."""
    names = [parameter.name for parameter in law.parameters]
    for name, prior in objective.priors.items():
        if name not in names:
            raise ConfigurationError(f"--prior {name}: law {law.name} has no such parameter (parameters: {', '.join(names)})")
        if prior.sd <= 0:
            raise ConfigurationError(f"--prior {name}: the standard deviation must be positive, got {prior.sd:g}")
