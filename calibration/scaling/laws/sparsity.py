"""Sparsity: loss against all parameters, tokens and the share of experts that a token leaves out; evaluated with its published coefficients."""

from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import Law, Published, coefficient
from calibration.scaling.points import Floats, Points


class Sparsity(Law):
    """L = e + a / N^alpha + b / D^beta + c / (1 - S)^lambda + d / ((1 - S)^delta N^gamma); N total parameters, 1 - S = k / E (Abnar et al. 2025).

    The authors report R^2 99 % on the runs fitted and 68 % on held-out runs at S = 0.98: not for extrapolation in sparsity.
    """

    name = "sparsity"
    title = "Sparsity"
    formula = "L = e + a / N^alpha + b / D^beta + c / (1 - S)^lambda + d / ((1 - S)^delta N^gamma), N total, 1 - S = k / E"
    source = "Abnar et al. 2025, arXiv 2501.12370"
    parameters = tuple(coefficient(name) for name in ("a", "alpha", "b", "beta", "c", "lambda", "d", "delta", "gamma", "e"))
    variables = ("n", "d", "e")
    published: ClassVar[Mapping[str, Published]] = {
        "abnar": Published(
            {
                "a": 16612.5, "alpha": 0.5962, "b": 5455.67, "beta": 0.3954, "c": 0.4598, "lambda": -0.1666, "d": 17.26, "delta": 0.1603, "gamma": 0.1595,
                "e": 0.94,
            },
            "Abnar et al. 2025, arXiv 2501.12370",
        ),
    }  # fmt: skip

    def log_loss(self, theta: Floats, points: Points) -> Floats:
        """ln of the sum of the five terms."""
        import numpy as np

        a, alpha, b, beta, c, lambda_, d, delta, gamma, e = (theta[..., k, None] for k in range(10))
        log_active = points.log_k - points.log_e
        falls = ((a, -alpha * points.log_total), (b, -beta * points.log_d), (c, -lambda_ * log_active), (d, -delta * log_active - gamma * points.log_total))
        return np.asarray(np.log(e + sum(factor * np.exp(power) for factor, power in falls)))
