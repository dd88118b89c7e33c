"""Fine-grained: MoE whose experts are split into smaller ones; evaluated with its published coefficients."""

from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import Law, Published, coefficient
from calibration.scaling.points import Floats, Points


class FineGrained(Law):
    """L = c + (g / G^gamma + a) / N^alpha + b / D^beta for granularity G at 64 times as many parameters as active (Krajewski et al. 2024)."""

    name = "fine-grained"
    title = "Fine-grained"
    formula = "L = c + (g / G^gamma + a) / N^alpha + b / D^beta"
    source = "Krajewski et al. 2024, arXiv 2402.07871"
    parameters = tuple(coefficient(name) for name in ("a", "alpha", "b", "beta", "g", "gamma", "c"))
    variables = ("n", "d", "g")
    published: ClassVar[Mapping[str, Published]] = {
        "krajewski": Published(
            {"a": 18.1, "alpha": 0.115, "b": 30.8, "beta": 0.147, "g": 2.1, "gamma": 0.58, "c": 0.47}, "Krajewski et al. 2024, arXiv 2402.07871, MoE"
        ),
        "krajewski-dense": Published(
            {"a": 16.3, "alpha": 0.126, "b": 26.7, "beta": 0.127, "g": 0.0, "gamma": 0.0, "c": 0.47},
            "Krajewski et al. 2024, arXiv 2402.07871, dense (no granularity)",
        ),
    }

    def log_loss(self, theta: Floats, points: Points) -> Floats:
        """ln of the sum of floor, size and data."""
        import numpy as np

        a, alpha, b, beta, g, gamma, c = (theta[..., k, None] for k in range(7))
        size = (g * np.exp(-gamma * points.log_g) + a) * np.exp(-alpha * points.log_n)
        return np.asarray(np.log(c + size + b * np.exp(-beta * points.log_d)))
