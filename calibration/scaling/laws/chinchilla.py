"""Chinchilla: a floor, a term that falls with parameters and one that falls with tokens."""

import math
from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import FittedLaw, Published, exponent, scale
from calibration.scaling.points import Floats, Points
from calibration.scaling.projection import projected


class Chinchilla(FittedLaw):
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, approach 3)."""

    name = "chinchilla"
    title = "Chinchilla"
    formula = "L = E + A / N^alpha + B / D^beta"
    source = "Hoffmann et al. 2022, arXiv 2203.15556, section 3.3"
    parameters = (scale("E"), scale("A"), scale("B"), exponent("alpha"), exponent("beta"))
    variables = ("n", "d")
    published: ClassVar[Mapping[str, Published]] = {
        "hoffmann": Published(
            {"E": math.exp(0.5267228), "A": math.exp(6.0073404), "B": math.exp(6.0179186), "alpha": 0.33917084, "beta": 0.2849083},
            "Hoffmann et al. 2022, unrounded in the paper's TeX source: ln A 6.0073404, ln B 6.0179186, ln E 0.5267228",
        ),
        "hoffmann-printed": Published({"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}, "Hoffmann et al. 2022, as printed"),
        "besiroglu": Published({"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}, "Besiroglu et al. 2024, arXiv 2404.10102"),
    }

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """ln E, ln A - alpha ln N, ln B - beta ln D."""
        import numpy as np

        e, a, b, alpha, beta = (theta[:, k, None] for k in range(5))
        logs = np.stack([np.broadcast_to(e, (len(theta), len(points))), a - alpha * points.log_n, b - beta * points.log_d], axis=1)
        slopes = np.zeros((1, 3, len(points), 5))
        slopes[0, 0, :, 0] = slopes[0, 1, :, 1] = slopes[0, 2, :, 2] = 1
        slopes[0, 1, :, 3] = -points.log_n
        slopes[0, 2, :, 4] = -points.log_d
        return logs, slopes

    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """A' = A exp(-alpha shift), B' likewise."""
        moved = theta.copy()
        moved[..., 1] -= theta[..., 3] * by_log_n
        moved[..., 2] -= theta[..., 4] * by_log_d
        return moved

    def projected_starts(self, points: Points) -> Floats:
        """Factors by non-negative least squares on a grid of (alpha, beta)."""
        return projected(points)
