"""Two other ways to the optimal size, from the same table and without the law: isoFLOP parabolas and the envelope of all runs.

Approaches 2 and 1 of Hoffmann et al. 2022. Both are exact only for terms of equal exponents and grids centred on the optimum; here they are a check.
"""

import math
from dataclasses import dataclass

from calibration.scaling.allocation import BAND, Budget
from calibration.scaling.laws.base import Law
from calibration.scaling.points import Floats, Points

SAME_BUDGET = 0.1
"""Neighbouring runs whose ln FLOPs differ by less belong to one budget."""

WIDEST_BUDGET = 0.5
FEWEST_RUNS = 5
FEWEST_BUDGETS = 3


@dataclass(frozen=True)
class PowerLaw:
    """N_opt = exp(``log_n`` at ``log_c``) (C / C0)^``exponent``, from ``budgets`` points; ``exponent_se`` standard error."""

    exponent: float
    exponent_se: float
    log_n: float
    log_c: float
    budgets: int

    def n_at(self, flops: float) -> float:
        """Optimal size at ``flops``."""
        return math.exp(self.log_n + self.exponent * (math.log(flops) - self.log_c))


@dataclass(frozen=True)
class CrossCheck:
    """What another method would choose. ``excess_loss``: share of loss that the law expects its size to cost; ``agrees`` when within the flat band."""

    method: str
    exponent: float
    exponent_se: float
    budgets: int
    n: float
    excess_loss: float
    agrees: bool


def cross_checks(points: Points, law: Law, theta: Floats, flops: float, experts: float, best_loss: float) -> tuple[CrossCheck, ...]:
    """The checks that the runs with ``experts`` allow, against the law's optimum of ``best_loss`` at ``flops`` = 6 N D."""
    import numpy as np

    alike = points.take(np.abs(points.log_e - math.log(experts)) < 1e-6)
    found = []
    for method, optima in (("isoFLOP parabolas", isoflop_optima(alike)), ("envelope of runs", envelope(alike))):
        line = power_law(*optima)
        if line is None:
            continue
        n = line.n_at(flops)
        loss = float(law.loss(theta, Budget(flops).points(np.array([n]), experts, 1.0))[0])
        excess = loss / best_loss - 1
        found.append(CrossCheck(method, line.exponent, line.exponent_se, line.budgets, n, excess, excess <= BAND))
    return tuple(found)


def isoflop_optima(points: Points) -> tuple[Floats, Floats]:
    """ln FLOPs and ln N of the lowest point of a parabola in ln N, for every budget whose runs enclose it [b]."""
    import numpy as np

    order = np.argsort(points.log_c, kind="stable")
    groups = np.split(order, 1 + np.flatnonzero(np.diff(points.log_c[order]) > SAME_BUDGET))
    log_c, log_n = [], []
    for group in groups:
        c, x, y = points.log_c[group], points.log_n[group], points.log_loss[group]
        if len(group) < FEWEST_RUNS or np.ptp(c) > WIDEST_BUDGET or np.ptp(x) == 0:
            continue
        # A digitised budget scatters: a linear term in ln FLOPs takes that out, where there is any.
        columns = [np.ones(len(x)), x - x.mean(), (x - x.mean()) ** 2, *([c - c.mean()] if np.ptp(c) > 1e-6 else [])]
        weights, *_ = np.linalg.lstsq(np.stack(columns, axis=1), y, rcond=None)
        lowest = x.mean() - weights[1] / (2 * weights[2]) if weights[2] > 0 else math.inf
        if x.min() < lowest < x.max():
            log_c.append(c.mean())
            log_n.append(lowest)
    return np.array(log_c), np.array(log_n)


def envelope(points: Points) -> tuple[Floats, Floats]:
    """ln FLOPs and ln N of the runs that no run of as much or less compute undercuts [b]."""
    import numpy as np

    order = np.lexsort((points.log_loss, np.round(points.log_c, 6)))
    best = np.minimum.accumulate(points.log_loss[order])
    leading = order[np.concatenate([[True], points.log_loss[order][1:] < best[:-1]])]
    return points.log_c[leading], points.log_n[leading]


def power_law(log_c: Floats, log_n: Floats) -> PowerLaw | None:
    """Straight line through optima by least squares; None for too few budgets."""
    import numpy as np

    if len(log_c) < FEWEST_BUDGETS or np.ptp(log_c) == 0:
        return None
    centre = float(log_c.mean())
    x = log_c - centre
    exponent = float((x * log_n).sum() / (x**2).sum())
    residual = log_n - log_n.mean() - exponent * x
    variance = float((residual**2).sum()) / max(1, len(x) - 2) / float((x**2).sum())
    return PowerLaw(exponent, math.sqrt(variance), float(log_n.mean()), centre, len(log_c))
