"""The loss roofline: at fixed compute, loss against tokens per parameter, between what parameters alone and what data alone would allow.

As attainable speed lies under a bandwidth and a compute roof, attainable loss lies above two lines: the loss with endless data (parameters bind) and the loss
with endless parameters (data bind). The regions meet where both elasticities are equal, rho = 1.
"""

import math
from dataclasses import dataclass

from calibration.scaling.bootstrap import Ensemble
from calibration.scaling.fit import Fit
from calibration.scaling.next_run import points_like
from calibration.scaling.points import Floats, Points, moved
from calibration.scaling.verdict import LEVEL, rho_at

RATIOS = (0.1, 10_000.0)
STEPS = 61
ENDLESS = 300.0
"""ln of the factor that stands for endless: every power law has died out by then."""


@dataclass(frozen=True)
class Roofline:
    """Arrays over ``tokens_per_parameter`` at ``flops`` = 6 N D; ``low`` and ``high`` end the band of ``loss`` at LEVEL.

    ``parameter_limit`` loss with endless data, ``data_limit`` with endless parameters; ``rho`` above 1 where parameters bind. ``balanced`` tokens per parameter
    where rho = 1, None outside the range.
    """

    flops: float
    experts: float
    tokens_per_parameter: tuple[float, ...]
    loss: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    parameter_limit: tuple[float, ...]
    data_limit: tuple[float, ...]
    rho: tuple[float, ...]
    balanced: float | None


def roofline_at(fit: Fit, ensemble: Ensemble, point: Points) -> Roofline | None:
    """The roofline at the compute 6 N D and the experts of the single ``point``; None for a law without N or D."""
    import numpy as np

    if not {"n", "d"} <= set(fit.law.variables):
        return None
    flops = 6 * float(np.exp(point.log_n[0] + point.log_d[0]))
    ratios = np.geomspace(*RATIOS, STEPS)
    n = np.sqrt(flops / (6 * ratios))
    points = points_like(point, n, n * ratios)
    estimate = fit.law.log_loss(fit.theta, points)
    low, high = ensemble.log_loss_interval(fit.law.log_loss(ensemble.refits, points), estimate, points, LEVEL)
    rho = rho_at(fit.law, fit.theta, points)
    return Roofline(
        flops=flops,
        experts=float(np.exp(point.log_e[0])),
        tokens_per_parameter=_listed(ratios),
        loss=_listed(np.exp(estimate)),
        low=_listed(np.exp(low)),
        high=_listed(np.exp(high)),
        parameter_limit=_listed(fit.law.loss(fit.theta, moved(points, "d", ENDLESS))),
        data_limit=_listed(fit.law.loss(fit.theta, moved(points, "n", ENDLESS))),
        rho=_listed(rho),
        balanced=_crossing(np.log(ratios), np.log(rho)),
    )


def _listed(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _crossing(log_ratio: Floats, log_rho: Floats) -> float | None:
    """Where ln rho changes sign, between two points linearly."""
    import numpy as np

    after = np.flatnonzero((log_rho[:-1] < 0) & (log_rho[1:] >= 0))
    if not len(after):
        return None
    left = int(after[0])
    part = -log_rho[left] / (log_rho[left + 1] - log_rho[left])
    return math.exp(float(log_ratio[left] + part * (log_ratio[left + 1] - log_ratio[left])))
