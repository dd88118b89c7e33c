"""How to spend a compute budget: the size, the tokens and the experts of lowest predicted loss, and how flat the optimum is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibration.scaling.bootstrap import Ensemble
from calibration.scaling.hull import hull_at
from calibration.scaling.laws.base import Law
from calibration.scaling.points import Floats, Points, points_at
from calibration.scaling.verdict import BYTES_PER_PARAMETER, LEVEL
from configuration.errors import ConfigurationError

BAND = 1e-3
"""Choices whose predicted loss is within this share of the best are as good as the best."""

RATIOS = (1e-3, 1e6)
"""Tokens per parameter that are searched."""

STEPS = 1801
DRAWS = 300
DRAWS_AT_ONCE = 25


@dataclass(frozen=True)
class Budget:
    """What may be spent: ``flops`` = 6 N D + 2 N ``inference_tokens`` (Sardana et al. 2024, arXiv 2401.00448); at most ``unique_tokens`` different ones."""

    flops: float
    inference_tokens: float = 0.0
    unique_tokens: float | None = None

    def points(self, n: Floats, experts: float, top_k: float, total: Floats | None = None) -> Points:
        """Sizes ``n`` trained for what the budget leaves; sizes that leave nothing are left out."""
        import numpy as np

        d = (self.flops / n - 2 * self.inference_tokens) / 6
        left = d > 0
        n, d = n[left], d[left]
        unique = d if self.unique_tokens is None else np.minimum(d, self.unique_tokens)
        return points_at(n, d, experts=experts, top_k=top_k, unique_tokens=unique, total=None if total is None else total[left])


@dataclass(frozen=True)
class Memory:
    """A limit on the training state: 16 bytes for each of all parameters, N (1 + ``expert_share`` (E / k - 1)); ``limit_bytes`` infinite without one."""

    limit_bytes: float = math.inf
    expert_share: float | None = None

    def total(self, n: Floats, experts: float, top_k: float) -> Floats | None:
        """All parameters [n]; None where experts are and their share is not known."""
        if experts <= top_k:
            return n
        return None if self.expert_share is None else n * (1 + self.expert_share * (experts / top_k - 1))

    def allows(self, total: Floats | None) -> Floats | bool:
        """Which sizes fit. Raises ConfigurationError when that cannot be known."""
        if math.isinf(self.limit_bytes):
            return True
        if total is None:
            raise ConfigurationError("--memory: the table does not say how total parameters grow with experts (no run with total above active parameters)")
        return total * BYTES_PER_PARAMETER <= self.limit_bytes


@dataclass(frozen=True)
class Choice:
    """The best for one number of experts. Intervals at LEVEL (None without an ensemble); ``band`` the sizes within BAND of the best loss.

    ``limited_by_memory``: the unlimited optimum does not fit. ``beyond`` warns of extrapolation.
    """

    experts: float
    n: float
    d: float
    total_parameters: float | None
    tokens_per_parameter: float
    loss: float
    loss_interval: tuple[float, float] | None
    n_interval: tuple[float, float] | None
    band: tuple[float, float]
    limited_by_memory: bool
    beyond: str


def allocate(
    law: Law, theta: Floats, budget: Budget, experts: Sequence[float], *, top_k: float = 1.0, memory: Memory | None = None,
    ensemble: Ensemble | None = None, seen: Points | None = None,
) -> tuple[Choice, ...]:  # fmt: skip
    """The best N and D for each of ``experts``, lowest loss first. ``seen`` are the fitted runs, for the hull warning.

    Raises ConfigurationError when nothing fits the budget, or for a law that lacks N or D.
    """
    if not {"n", "d"} <= set(law.variables):
        raise ConfigurationError(f"law {law.name} does not know both N and D: it cannot divide a budget between them")
    memory = memory or Memory()
    choices = [choice for count in experts if (choice := _best(law, theta, budget, count, min(top_k, count), memory, ensemble, seen))]
    if not choices:
        raise ConfigurationError("no model fits: raise the memory limit or the FLOPs, or lower the inference tokens")
    return tuple(sorted(choices, key=lambda choice: choice.loss))


def _best(
    law: Law, theta: Floats, budget: Budget, experts: float, top_k: float, memory: Memory, ensemble: Ensemble | None, seen: Points | None
) -> Choice | None:
    import numpy as np

    sizes = np.sqrt(budget.flops / (6 * np.geomspace(*RATIOS[::-1], STEPS)))
    total = memory.total(sizes, experts, top_k)
    fits = np.broadcast_to(memory.allows(total), sizes.shape)
    points = budget.points(sizes[fits], experts, top_k, None if total is None else total[fits])
    if not len(points):
        return None
    log_loss = law.log_loss(theta, points)
    log_n, lowest = lowest_point(points.log_n, log_loss[None])
    place = budget.points(np.exp(log_n), experts, top_k, memory.total(np.exp(log_n), experts, top_k))
    inside = points.log_n[log_loss <= lowest[0] + math.log1p(BAND)]
    n, d = float(np.exp(place.log_n[0])), float(np.exp(place.log_d[0]))
    loss_interval = n_interval = None
    if ensemble is not None:
        some = replace(ensemble, theta=ensemble.theta[:DRAWS])
        refits = some.refits
        sampled = [lowest_point(points.log_n, law.log_loss(refits[at : at + DRAWS_AT_ONCE], points))[0] for at in range(0, len(refits), DRAWS_AT_ONCE)]
        n_interval = ensemble.interval(np.exp(some.widened(np.concatenate(sampled), float(log_n[0]))), LEVEL)
        (low,), (high,) = np.exp(ensemble.log_loss_interval(law.log_loss(ensemble.refits, place), lowest, place, LEVEL))
        loss_interval = (float(low), float(high))
    return Choice(
        experts=float(experts),
        n=n,
        d=d,
        total_parameters=None if total is None else float(np.exp(place.log_total[0])),
        tokens_per_parameter=d / n,
        loss=float(np.exp(lowest[0])),
        loss_interval=loss_interval,
        n_interval=n_interval,
        band=(float(np.exp(inside.min())), float(np.exp(inside.max()))),
        limited_by_memory=bool(not fits.all() and n > 0.99 * sizes[fits].max()),
        beyond="" if seen is None else hull_at(seen, law.variables, place).words,
    )


def lowest_point(x: Floats, log_loss: Floats) -> tuple[Floats, Floats]:
    """Where the curves ``log_loss`` [R, m] over the even grid ``x`` [m] are lowest, and how low [R]: a parabola through the three lowest points."""
    import numpy as np

    rows = np.arange(len(log_loss))
    at = log_loss.argmin(axis=1)
    if len(x) < 3:
        return x[at], log_loss[rows, at]
    middle = np.clip(at, 1, len(x) - 2)
    left, centre, right = (log_loss[rows, middle + offset] for offset in (-1, 0, 1))
    curvature = left - 2 * centre + right
    step = np.where(curvature > 0, 0.5 * (left - right) / np.where(curvature > 0, curvature, 1.0), 0.0)
    within = (at == middle) & (np.abs(step) <= 1)
    step = np.where(within, step, at - middle)
    value = np.where(within, centre - 0.25 * (left - right) * step, log_loss[rows, at])
    return x[middle] + step * (x[1] - x[0]), value


def expert_share(points: Points) -> float | None:
    """Share of the active parameters that experts hold, from the runs' total and active counts (median); None when no run has inactive experts."""
    import numpy as np

    spread = np.expm1(points.log_e - points.log_k)
    routed = (spread > 0) & (points.log_total > points.log_n)
    if not routed.any():
        return None
    return float(np.median(np.expm1(points.log_total - points.log_n)[routed] / spread[routed]))
