"""What the answer owes to the objective: the same law under other robustness settings, and without its priors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from calibration.scaling.fit import Fit, FitError, fit
from calibration.scaling.objective import Objective
from calibration.scaling.points import Points
from calibration.scaling.verdict import rho_at

DELTAS = (1e-3, 1e-2, 1e-1, float("inf"))
RANDOM_STARTS = 8


@dataclass(frozen=True)
class Variant:
    """One other objective: its ``coefficients``, and ``loss`` and ``rho`` (None for a law without N or D) at the verdict's point; empty with a ``failure``."""

    objective: str
    coefficients: Mapping[str, float]
    loss: float | None
    rho: float | None
    failure: str | None


def variants(found: Fit, point: Points, seed: int = 0) -> tuple[Variant, ...]:
    """Refits of ``found`` over DELTAS, and without priors where it has any."""
    own = found.objective
    objectives = [own, *(replace(own, delta=delta) for delta in DELTAS if delta != own.delta)]
    if own.priors:
        objectives.append(Objective(own.delta))
    return tuple(_variant(found, objective, point, seed) for objective in objectives)


def _variant(found: Fit, objective: Objective, point: Points, seed: int) -> Variant:
    law = found.law
    try:
        theta = found.theta if objective == found.objective else fit(found.points, law, objective, seed=seed, random_starts=RANDOM_STARTS).theta
    except FitError as error:
        return Variant(objective.title, {}, None, None, str(error))
    rho = float(rho_at(law, theta, point)[0]) if {"n", "d"} <= set(law.variables) else None
    return Variant(objective.title, law.coefficients_of(theta), float(law.loss(theta, point)[0]), rho, None)
