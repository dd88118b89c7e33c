"""Many small fits at once: Newton steps with Levenberg-Marquardt damping, one damping per fit, within bounds."""

from dataclasses import dataclass

from calibration.scaling.objective import Problem, inward, limits
from calibration.scaling.points import Floats

SMALL_STEEPNESS = 1e-5
"""A fit has converged when its gradient is this small against the sum of the influences of its rows."""

EXACT = 1e-15
"""Objective of a fit that meets every row to the rounding of its logarithm."""

TINY_STEP = 1e-11

WHOLE_ITERATIONS = 60
FEWEST_FOR_WHOLE = 100
"""Shorter descents are warm-ups, which need not end at an optimum."""


@dataclass(frozen=True)
class Minimum:
    """Where R fits ended: ``theta`` [R, p], ``value`` [R] of the objective, ``steepness`` [R] of the gradient (see SMALL_STEEPNESS)."""

    theta: Floats
    value: Floats
    steepness: Floats

    @property
    def converged(self) -> Floats:
        """Which fits ended at an optimum [R]. A table without noise is met exactly: there gradient and residuals are both nothing but rounding."""
        return (self.steepness < SMALL_STEEPNESS) | (self.value < EXACT)


def minimise(problem: Problem, starts: Floats, iterations: int = 2000) -> Minimum:
    """Minimise every fit of ``problem`` from its start [R, p]. Does not judge: see ``steepness``.

    Fits that the Hessian of ``Problem.expansion`` leaves short of an optimum, because their terms bend, go on with the whole Hessian.
    """
    import numpy as np

    lower, upper = limits(problem.law)
    theta = np.clip(starts, lower, upper)
    value = problem.value(theta)
    _descend(problem, theta, value, np.arange(len(theta)), iterations, whole=False)
    first = Minimum(theta, value, problem.steepness(theta))
    short = np.flatnonzero(~first.converged)
    if not len(short) or iterations < FEWEST_FOR_WHOLE:
        return first
    _descend(problem, theta, value, short, WHOLE_ITERATIONS, whole=True)
    return Minimum(theta, value, problem.steepness(theta))


def _descend(problem: Problem, theta: Floats, value: Floats, active: Floats, iterations: int, *, whole: bool) -> None:
    """Move the ``active`` rows of ``theta`` [R, p] and ``value`` [R] downhill, in place."""
    import numpy as np

    lower, upper = limits(problem.law)
    damping = np.full(len(theta), 1e-3)
    for _ in range(iterations):
        part = problem.take(active)
        here = theta[active]
        gradient, hessian, scale = part.expansion(here)
        if whole:
            hessian = part.whole_hessian(here)
        gradient = inward(gradient, here, lower, upper)
        trial = np.clip(here + _step(gradient, hessian, scale, damping[active]), lower, upper)
        there = part.value(trial)
        better = there < value[active]
        moved = np.abs(trial - here).max(axis=1)
        gain = (value[active] - there) / np.maximum(value[active], 1e-300)
        theta[active] = np.where(better[:, None], trial, here)
        value[active] = np.where(better, there, value[active])
        damping[active] = np.clip(np.where(better, damping[active] / 5, damping[active] * 4), 1e-12, 1e12)
        # A rejected step that is tiny, or an accepted one that gains nothing to the last digits, ends a fit.
        done = (~better & (moved < TINY_STEP)) | (better & (gain < 1e-15)) | (np.abs(gradient).max(axis=1) == 0)
        active = active[~done]
        if not len(active):
            break


def _step(gradient: Floats, hessian: Floats, scale: Floats, damping: Floats) -> Floats:
    """Newton step [R, p] with ``damping`` [R] relative to the least-squares diagonal; parameters without a gradient stay."""
    import numpy as np

    size = gradient.shape[1]
    diagonal = np.maximum(scale, 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300)
    root = np.sqrt(diagonal)
    system = hessian / (root[:, :, None] * root[:, None, :])
    free = (gradient != 0).astype(float)
    system *= free[:, :, None] * free[:, None, :]
    # Where robust rows leave the Hessian without curvature, the lift keeps the step one of descent.
    lift = np.maximum(0.0, -np.linalg.eigvalsh(system)[:, 0])
    system[:, np.arange(size), np.arange(size)] += (damping + 1.5 * lift + 1e-15)[:, None] + (1 - free)
    return np.asarray(-np.linalg.solve(system, (gradient / root)[:, :, None])[:, :, 0] / root)
