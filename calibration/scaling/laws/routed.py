"""Routed: loss against size and experts at a fixed number of tokens, the first law of MoE models."""

import math
from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import FittedLaw, Parameter, Published
from calibration.scaling.laws.effective_experts import log_effective_experts, max_parameter, start_parameter
from calibration.scaling.points import Floats, Points

LN10 = math.log(10)
GRID_START = (1.5, 2.5, 4.0, 8.0)
GRID_MAX = (100.0, 200.0, 400.0, 1000.0)


def _slope(name: str, low: float, high: float, start: tuple[float, float]) -> Parameter:
    return Parameter(name, False, (low, high), start)


def _published(router: str, *values: float) -> Published:
    names = ("a", "b", "c", "d", "E_start", "E_max")
    return Published(dict(zip(names, values, strict=True)), f"Clark et al. 2022, arXiv 2202.01169, {router}, at 130B tokens")


class Routed(FittedLaw):
    """log10 L = a log10 N + b log10 E' + c log10 N log10 E' + d, with E' the effective experts (Clark et al. 2022); N counts the dense model; no floor."""

    name = "routed"
    title = "Routed"
    formula = "log10 L = a log10 N + b log10 E' + c log10 N log10 E' + d, 1/E' = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max"
    source = "Clark et al. 2022, arXiv 2202.01169"
    parameters = (
        _slope("a", -1.0, 0.0, (-0.2, -0.02)),
        _slope("b", -1.0, 0.5, (-0.2, 0.0)),
        _slope("c", -0.2, 0.2, (-0.02, 0.02)),
        _slope("d", -1.0, 3.0, (0.2, 0.8)),
        start_parameter(),
        max_parameter(),
    )
    variables = ("n", "e")
    floor = None
    levels: ClassVar[Mapping[str, int]] = {"e": 4}
    """Intercept and slope linear in ln E' leave each level beyond two to tell one parameter of the saturation."""
    published: ClassVar[Mapping[str, Published]] = {
        "s-base": _published("S-Base", -0.082, -0.108, 0.009, 1.104, 1.847, 314.478),
        "rl-r": _published("RL-R", -0.083, -0.126, 0.012, 1.111, 1.880, 469.982),
        "hash": _published("Hash", -0.087, -0.136, 0.012, 1.157, 4.175, 477.741),
    }

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """One term: ln L itself."""
        import numpy as np

        a, b, c, d, start, most = (theta[:, k, None] for k in range(6))
        x, by_start, by_max = log_effective_experts(start, most, points.log_e)
        y = np.broadcast_to(points.log_n, x.shape)
        logs = a * y + b * x + c / LN10 * x * y + d * LN10
        by_x = b + c / LN10 * y
        slopes = np.stack([y, x, x * y / LN10, np.full(x.shape, LN10), by_x * by_start, by_x * by_max], axis=2)
        return logs[:, None], slopes[:, None]

    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """b' = b + c shift, d' = d + a shift, in decades; tokens do not enter."""
        moved = theta.copy()
        moved[..., 3] += theta[..., 0] * by_log_n / LN10
        moved[..., 1] += theta[..., 2] * by_log_n / LN10
        return moved

    def projected_starts(self, points: Points) -> Floats:
        """For given E_start and E_max the law is linear."""
        import numpy as np

        starts = []
        for first in GRID_START:
            for most in GRID_MAX:
                x, _, _ = log_effective_experts(np.log(first), np.log(most), points.log_e)
                design = np.stack([points.log_n, x, x * points.log_n / LN10, np.full(len(x), LN10)], axis=1)
                weights, *_ = np.linalg.lstsq(design, points.log_loss, rcond=None)
                starts.append([*weights, np.log(first), np.log(most)])
        return np.array(starts)


def effective_parameters(law: Routed, theta: Floats, points: Points) -> Floats:
    """Size of the dense model of equal loss [n] for one theta [6] (Clark et al. 2022)."""
    import numpy as np

    a, _, c, _, start, _ = theta
    dense = law.log_loss(theta, Points(**{**points.__dict__, "log_e": np.zeros(len(points))}))
    return np.asarray(np.exp(points.log_n + (law.log_loss(theta, points) - dense) / (a + c / LN10 * start)))
