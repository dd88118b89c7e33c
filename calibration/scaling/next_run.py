"""The run that would teach most: the largest expected drop of the variance of what the user wants to know.

A run at x with noise s tells of a quantity q by their covariance over the bootstrap: Var(q | run) = Var(q) - Cov(q, y(x))^2 / (Var(y(x)) + s^2), the update of
a linear Gaussian model (D-optimal design for one quantity, Chaloner and Verdinelli 1995, section 2).
"""

import math
from dataclasses import dataclass

from calibration.scaling.bootstrap import Ensemble
from calibration.scaling.fit import Fit
from calibration.scaling.points import Floats, Points, points_at

STEPS = 13
REACH = 2.0
"""Candidates lie within this factor of the table's sizes and token counts, and within its own range of tokens per parameter and of compute."""

FARTHER = 10.0
"""The loss to be foretold is that at this many times the compute of the verdict's point, at the same tokens per parameter."""


@dataclass(frozen=True)
class NextRun:
    """A candidate run: ``variance_removed`` is the share of the variance of ``target`` that it is expected to remove."""

    target: str
    n: float
    d: float
    experts: float
    flops: float
    variance_removed: float


def next_runs(fit: Fit, ensemble: Ensemble, point: Points, log_rho: Floats | None) -> tuple[NextRun, ...]:
    """The best run for each target: the balance of N and D at ``point`` (``log_rho`` [R] of the ensemble; None without one) and the loss beyond it."""
    import numpy as np

    beyond = points_like(point, np.exp(point.log_n) * math.sqrt(FARTHER), np.exp(point.log_d) * math.sqrt(FARTHER))
    targets = {f"loss at {FARTHER:g} times the compute": fit.law.log_loss(ensemble.theta, beyond)[:, 0]}
    if log_rho is not None:
        targets = {"balance of N and D": log_rho, **targets}
    candidates = _candidates(fit)
    drawn = fit.law.log_loss(ensemble.theta, candidates)
    drawn = drawn - drawn.mean(axis=0)
    noise = float((ensemble.noise**2).mean())
    found = []
    for name, values in targets.items():
        centred = values - values.mean()
        covariance = (drawn * centred[:, None]).mean(axis=0)
        removed = covariance**2 / ((drawn**2).mean(axis=0) + noise) / max(float((centred**2).mean()), 1e-300)
        best = int(removed.argmax())
        n, d, e = (float(np.exp(getattr(candidates, f"log_{variable}")[best])) for variable in ("n", "d", "e"))
        found.append(NextRun(name, n, d, e, 6 * n * d, float(removed[best])))
    return tuple(found)


def points_like(point: Points, n: Floats, d: Floats) -> Points:
    """Points of N and D that share everything else with the single ``point``: experts, top-k, granularity, share of total and of unique tokens."""
    import numpy as np

    experts, top_k, granularity = (np.exp(getattr(point, f"log_{name}")) for name in ("e", "k", "g"))
    return points_at(
        n, d, experts=experts, top_k=top_k, granularity=granularity,
        total=n * np.exp(point.log_total - point.log_n), unique_tokens=d * np.exp(point.log_u - point.log_d),
    )  # fmt: skip


def _candidates(fit: Fit) -> Points:
    """A grid of N and D (and the table's levels of E)."""
    import numpy as np

    points = fit.points
    reach = math.log(REACH)
    axes = [np.linspace(logs.min() - reach, logs.max() + reach, STEPS) for logs in (points.log_n, points.log_d)]
    experts = np.unique(np.round(points.log_e, 6)) if "e" in fit.law.variables else np.round(points.log_e[:1], 6)
    n, d, e = (grid.ravel() for grid in np.meshgrid(*axes, experts, indexing="ij"))
    ratios = points.log_d - points.log_n
    cost = np.log(6) + n + d
    kept = (d - n >= ratios.min()) & (d - n <= ratios.max()) & (cost >= points.log_c.min() - 1e-9) & (cost <= points.log_c.max() + 1e-9)
    return points_at(np.exp(n[kept]), np.exp(d[kept]), experts=np.exp(e[kept]))
