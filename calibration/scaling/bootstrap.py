"""How sure a fit is: refits to resampled runs, or to simulated losses when the runs are few."""

from dataclasses import dataclass
from statistics import NormalDist

from calibration.scaling.blocks import block_refits, jackknife_sd
from calibration.scaling.descent import Minimum, minimise
from calibration.scaling.fit import SAME_OPTIMUM, Fit, FitError
from calibration.scaling.points import Floats, Points

RESAMPLES = 1000
FEWEST_RUNS = 20
RUNS_PER_PARAMETER = 5
"""With fewer runs than the larger of these asks, resampling loses whole corners of the design and its intervals are too narrow: losses are simulated."""

SMALLEST_SD = 1e-12
"""Draws that scatter by less have no scatter to speak of."""

FORECAST_LEVEL = 0.8
"""Of the intervals that forecasts are tested at, and that the widening is learnt for."""

MOST_LEVELS = 8
"""A variable with more levels than this is cut into as many groups of equal size, each of which every draw must hold."""


@dataclass(frozen=True)
class Widening:
    """What forecasts inside the known runs ask of intervals (see backtest).

    Half widths are multiplied by ``factor`` >= 1. None of ln L at FORECAST_LEVEL, to either side, goes under ``least``, and beyond the greatest ln N D of the
    known runs, ``log_nd``, under ``least`` times one more for each factor of e. ``log_nd`` is None where too few forecasts told ``least``.
    """

    factor: float = 1.0
    least: float = 0.0
    log_nd: float | None = None

    def ends(self, low: Floats, high: Floats, points: Points, level: float) -> tuple[Floats, Floats]:
        """Ends [n] of the interval at ``level`` of ln L at ``points``, about the estimate, from those sampled.

        The least half width is carried to other levels as that of a normal distribution.
        """
        import numpy as np

        known = 0.0 if self.log_nd is None else self.least * farther(points, self.log_nd)
        least = known * normal_half_width(level) / normal_half_width(FORECAST_LEVEL)
        return np.minimum(self.factor * low, -least), np.maximum(self.factor * high, least)


def normal_half_width(level: float) -> float:
    """Of the central interval of a normal distribution at ``level``, in standard deviations."""
    return NormalDist().inv_cdf((1 + level) / 2)


def farther(points: Points, log_nd: float) -> Floats:
    """By how much errors of ln L are expected to grow [n] beyond a known ln N D: a wrong slope errs in proportion to the distance.

    N D stands for compute, also where N counts what computes nothing.
    """
    import numpy as np

    return np.asarray(1 + np.maximum(0.0, points.log_n + points.log_d - log_nd))


def central(drawn: Floats, level: float) -> tuple[Floats, Floats]:
    """Ends [n] of the central interval at ``level`` of ``drawn`` [R, n]."""
    import numpy as np

    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def greatest(points: Points) -> float:
    """The greatest ln N D."""
    return float((points.log_n + points.log_d).max())


@dataclass(frozen=True)
class Ensemble:
    """Refits of one law.

    ``theta`` [R, p] natural; ``blocks`` [K, p] the refits without a block of neighbouring runs (see blocks);
    ``noise`` [n] log residuals of the point fit, widened for the parameters spent on them: what a new run scatters by;
    ``noise_sd`` [R] the noise that each refit was simulated with, None when runs were resampled.
    ``share_converged`` of the refits with a small gradient, ``share_confirmed`` of them where a second start found nothing better.
    ``widening`` what forecasts of earlier cuts would have needed to cover what they claim.
    """

    method: str
    theta: Floats
    blocks: Floats
    noise: Floats
    noise_sd: Floats | None
    share_converged: float
    share_confirmed: float
    widening: Widening = Widening()

    @property
    def refits(self) -> Floats:
        """Theta [R + K, p] of all refits: what a quantity must be evaluated at to be ``widened``."""
        import numpy as np

        return np.concatenate([self.theta, self.blocks])

    def spread(self, values: Floats, estimate: Floats | float) -> Floats:
        """The draws [R, ...] of a quantity with ``values`` [R + K, ...] at the refits and point ``estimate`` [...].

        Where the refits without a block disagree by more than the draws scatter, the draws are spread about the estimate to that standard deviation.
        """
        import numpy as np

        drawn = values[: len(self.theta)]
        scattered = np.maximum(drawn.std(axis=0), SMALLEST_SD)
        return np.asarray(estimate + np.maximum(1.0, jackknife_sd(values[len(self.theta) :]) / scattered) * (drawn - estimate))

    def widened(self, values: Floats, estimate: Floats | float) -> Floats:
        """The draws of ``spread``, further from the estimate by the widening's factor."""
        return estimate + self.widening.factor * (self.spread(values, estimate) - estimate)

    def log_loss_interval(self, log_losses: Floats, estimate: Floats, points: Points, level: float) -> tuple[Floats, Floats]:
        """Ends [n] at ``level`` of what the law expects of ln L at ``points``, from its values [R + K, n] at the refits; runs scatter about it."""
        low, high = self.widening.ends(*central(self.spread(log_losses, estimate) - estimate, level), points, level)
        return estimate + low, estimate + high

    def scatter(self, count: int, seed: int) -> Floats:
        """Noise of ``count`` new runs for every draw [R, count]."""
        import numpy as np

        rng = np.random.default_rng(seed)
        if self.noise_sd is None:
            return rng.choice(self.noise, size=(len(self.theta), count))
        return self.noise_sd[:, None] * rng.standard_normal((len(self.theta), count))

    def interval(self, values: Floats, level: float) -> tuple[float, float]:
        """Central percentile interval of ``values`` [R]."""
        import numpy as np

        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def bootstrap(fit: Fit, *, resamples: int = RESAMPLES, seed: int = 0) -> Ensemble:
    """Refit ``resamples`` times: runs drawn with replacement, all checkpoints of a run together, every level of every variable present in each draw.

    With few runs (see FEWEST_RUNS) losses are simulated around the fit instead, with normal noise whose variance is itself drawn from its sampling
    distribution (scaled inverse chi-square), so that intervals widen as Student's t does. Raises FitError when no refit converges.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    points, size = fit.points, len(fit.points)
    noise = spread_noise(fit)
    if len(set(points.run.tolist())) < max(FEWEST_RUNS, RUNS_PER_PARAMETER * len(fit.theta)):
        method = "parametric"
        weights = np.ones((resamples, size))
        noise_sd = simulated_noise_sd(fit, resamples, rng)
        log_loss = fit.law.log_loss(fit.theta, points) + noise_sd[:, None] * rng.standard_normal((resamples, size))
    else:
        method = "runs resampled"
        noise_sd = None
        weights = resampled_weights(points, fit.law.variables, resamples, rng)
        log_loss = points.log_loss[None]
    problem = fit.problem(weights, log_loss)
    start = fit.centred(fit.theta)
    first = minimise(problem, np.repeat(start[None], resamples, axis=0))
    lengths = np.array([0.5 * (parameter.start[1] - parameter.start[0]) for parameter in fit.law.parameters])
    elsewhere = start + 0.25 * lengths * rng.uniform(-1, 1, size=(resamples, len(start)))
    second = minimise(problem, elsewhere)
    best, confirmed = _better_of(first, second)
    converged = best.converged
    if not converged.any():
        raise FitError(f"law {fit.law.name}: no bootstrap refit converged")
    theta = fit.law.recentred(best.theta[converged], -fit.log_n0, -fit.log_d0)
    sd = None if noise_sd is None else noise_sd[converged]
    return Ensemble(method, theta, block_refits(fit), noise, sd, float(converged.mean()), float(confirmed.mean()))


def spread_noise(fit: Fit) -> Floats:
    """Log residuals of a fit [n], spread for the parameters spent on them."""
    import numpy as np

    size = len(fit.points)
    return np.asarray(fit.residuals * np.sqrt(size / max(1, size - len(fit.theta))))


def _better_of(first: Minimum, second: Minimum) -> tuple[Minimum, Floats]:
    import numpy as np

    confirmed = first.value <= second.value * (1 + SAME_OPTIMUM) + 1e-18
    choose = first.value <= second.value
    theta = np.where(choose[:, None], first.theta, second.theta)
    return Minimum(theta, np.minimum(first.value, second.value), np.where(choose, first.steepness, second.steepness)), confirmed


def simulated_noise_sd(fit: Fit, resamples: int, rng: object) -> Floats:
    """Standard deviation of the noise [R]: that of the fit's residuals, uncertain with as many degrees of freedom as the fit leaves."""
    import numpy as np

    assert isinstance(rng, np.random.Generator)
    freedom = max(1, len(fit.points) - len(fit.theta))
    return np.asarray(np.sqrt((fit.residuals**2).sum() / rng.chisquare(freedom, size=resamples)))


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
