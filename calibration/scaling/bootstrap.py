"""How sure a fit is: refits to resampled runs, or to simulated losses when the runs are few."""

from dataclasses import dataclass

from calibration.scaling.descent import SMALL_STEEPNESS, Minimum, minimise
from calibration.scaling.fit import SAME_OPTIMUM, Fit
from calibration.scaling.points import Floats, Points

RESAMPLES = 1000
FEWEST_RUNS = 20
"""With fewer runs than this, resampling them loses whole corners of the design: losses are simulated instead."""

MOST_LEVELS = 8
"""A variable with more levels than this is cut into as many groups of equal size, each of which every draw must hold."""


@dataclass(frozen=True)
class Ensemble:
    """Refits of one law.

    ``theta`` [R, p] natural; ``noise`` [n] log residuals of the point fit, widened for the parameters spent on them: what a new run scatters by.
    ``share_converged`` of the refits with a small gradient, ``share_confirmed`` of them where a second start found nothing better.
    """

    method: str
    theta: Floats
    noise: Floats
    share_converged: float
    share_confirmed: float

    def interval(self, values: Floats, level: float) -> tuple[float, float]:
        """Central percentile interval of ``values`` [R]."""
        import numpy as np

        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def bootstrap(fit: Fit, *, resamples: int = RESAMPLES, seed: int = 0) -> Ensemble:
    """Refit ``resamples`` times: runs drawn with replacement, all checkpoints of a run together, every level of every variable present in each draw.

    With fewer than FEWEST_RUNS runs losses are simulated around the fit instead, with normal noise whose variance is itself drawn from its sampling
    distribution (scaled inverse chi-square), so that intervals widen as Student's t does.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    points, size = fit.points, len(fit.points)
    noise = fit.residuals * np.sqrt(size / max(1, size - len(fit.theta)))
    if len(set(points.run.tolist())) < FEWEST_RUNS:
        method = "parametric"
        weights = np.ones((resamples, size))
        log_loss = fit.law.log_loss(fit.theta, points) + simulated_noise(fit, resamples, rng)
    else:
        method = "runs resampled"
        weights = resampled_weights(points, fit.law.variables, resamples, rng)
        log_loss = points.log_loss[None]
    problem = fit.problem(weights, log_loss)
    start = fit.centred(fit.theta)
    first = minimise(problem, np.repeat(start[None], resamples, axis=0))
    lengths = np.array([0.5 * (parameter.start[1] - parameter.start[0]) for parameter in fit.law.parameters])
    elsewhere = start + 0.25 * lengths * rng.uniform(-1, 1, size=(resamples, len(start)))
    second = minimise(problem, elsewhere)
    best, confirmed = _better_of(first, second)
    converged = best.steepness < SMALL_STEEPNESS
    theta = fit.law.recentred(best.theta[converged], -fit.log_n0, -fit.log_d0)
    return Ensemble(method, theta, noise, float(converged.mean()), float(confirmed.mean()))


def _better_of(first: Minimum, second: Minimum) -> tuple[Minimum, Floats]:
    import numpy as np

    confirmed = first.value <= second.value * (1 + SAME_OPTIMUM) + 1e-18
    choose = first.value <= second.value
    theta = np.where(choose[:, None], first.theta, second.theta)
    return Minimum(theta, np.minimum(first.value, second.value), np.where(choose, first.steepness, second.steepness)), confirmed


def simulated_noise(fit: Fit, resamples: int, rng: object) -> Floats:
    """Normal noise [R, n] of the size of the fit's residuals, its variance uncertain with as many degrees of freedom as the fit leaves."""
    import numpy as np

    assert isinstance(rng, np.random.Generator)
    freedom = max(1, len(fit.points) - len(fit.theta))
    variance = (fit.residuals**2).sum() / rng.chisquare(freedom, size=resamples)
    return np.asarray(np.sqrt(variance)[:, None] * rng.standard_normal((resamples, len(fit.points))))


def resampled_weights(points: Points, variables: tuple[str, ...], resamples: int, rng: object) -> Floats:
    """How often each row stands in each resample [R, n]: runs drawn with replacement, draws that lose a level of a variable drawn again."""
    import numpy as np

    assert isinstance(rng, np.random.Generator)
    runs, first, of_row = np.unique(points.run, return_index=True, return_inverse=True)
    groups = [level_groups(getattr(points, f"log_{variable}")[first]) for variable in variables]
    kept: list[Floats] = []
    count = 0
    while count < resamples:
        draws = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=resamples)
        whole = np.ones(len(draws), dtype=bool)
        for group in groups:
            present = (draws > 0).astype(float) @ np.eye(group.max() + 1)[group]
            whole &= (present > 0).all(axis=1)
        kept.append(draws[whole])
        count += int(whole.sum())
    return np.concatenate(kept)[:resamples][:, of_row].astype(float)


def level_groups(logs: Floats) -> Floats:
    """Number of the level [n] of each value, values within 1 % being one level.

    Levels of fewer than three runs, or more than MOST_LEVELS of them, become groups of four runs or more in the order of the value.
    """
    import numpy as np

    order = np.argsort(logs, kind="stable")
    level = np.empty(len(logs), dtype=int)
    level[order] = np.concatenate([[0], np.cumsum(np.diff(logs[order]) > 0.01)])
    if level.max() < MOST_LEVELS and np.bincount(level).min() >= 3:
        return level
    groups = max(1, min(MOST_LEVELS, len(logs) // 4))
    rank = np.empty(len(logs), dtype=int)
    rank[order] = np.arange(len(logs))
    return np.asarray(rank * groups // len(logs))
