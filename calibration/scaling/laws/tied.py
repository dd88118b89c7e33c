"""Tied exponents: the Chinchilla form whose two terms fall with one exponent, for tables too small to tell two apart."""

from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import FittedLaw, Published, exponent, scale
from calibration.scaling.points import Floats, Points
from calibration.scaling.projection import projected


class Tied(FittedLaw):
    """L(N, D) = E + A / N^alpha + B / D^alpha: in compute C and M = D / N, E + (a M^eta + b M^-eta) C^-eta with eta = alpha / 2 (Gadre et al. 2024)."""

    name = "tied"
    title = "Tied exponents"
    formula = "L = E + A / N^alpha + B / D^alpha"
    source = "Gadre et al. 2024, arXiv 2403.08540"
    parameters = (scale("E"), scale("A"), scale("B"), exponent("alpha"))
    variables = ("n", "d")
    published: ClassVar[Mapping[str, Published]] = {
        "muennighoff": Published(
            {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353}, "Muennighoff et al. 2023, arXiv 2305.16264, base law of C4 without repetition"
        ),
    }

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """ln E, ln A - alpha ln N, ln B - alpha ln D."""
        import numpy as np

        e, a, b, alpha = (theta[:, k, None] for k in range(4))
        logs = np.stack([np.broadcast_to(e, (len(theta), len(points))), a - alpha * points.log_n, b - alpha * points.log_d], axis=1)
        slopes = np.zeros((1, 3, len(points), 4))
        slopes[0, 0, :, 0] = slopes[0, 1, :, 1] = slopes[0, 2, :, 2] = 1
        slopes[0, 1, :, 3] = -points.log_n
        slopes[0, 2, :, 3] = -points.log_d
        return logs, slopes

    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """A' = A exp(-alpha shift), B' likewise."""
        moved = theta.copy()
        moved[..., 1] -= theta[..., 3] * by_log_n
        moved[..., 2] -= theta[..., 3] * by_log_d
        return moved

    def projected_starts(self, points: Points) -> Floats:
        """Factors by non-negative least squares on a grid of alpha."""
        return projected(points, tied=True)[:, :4]
