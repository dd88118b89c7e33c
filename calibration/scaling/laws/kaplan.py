"""Kaplan: the first law of language models, with one exponent inside another; evaluated with its published coefficients."""

from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import Law, Published, coefficient
from calibration.scaling.points import Floats, Points


class Kaplan(Law):
    """L = ((N_c / N)^(a_N / a_D) + D_c / D)^a_D; N without embeddings (Kaplan et al. 2020)."""

    name = "kaplan"
    title = "Kaplan"
    formula = "L = ((N_c / N)^(a_N / a_D) + D_c / D)^a_D"
    source = "Kaplan et al. 2020, arXiv 2001.08361, equation 1.5"
    parameters = tuple(coefficient(name) for name in ("a_N", "a_D", "N_c", "D_c"))
    variables = ("n", "d")
    published: ClassVar[Mapping[str, Published]] = {
        "kaplan": Published(
            {"a_N": 0.076, "a_D": 0.095, "N_c": 8.8e13, "D_c": 5.4e13},
            "Kaplan et al. 2020, arXiv 2001.08361, equations 1.1 and 1.2 (fits in N and in D alone)",
        ),
    }

    def log_loss(self, theta: Floats, points: Points) -> Floats:
        """a_D ln of the sum."""
        import numpy as np

        a_n, a_d, n_c, d_c = (theta[..., k, None] for k in range(4))
        return np.asarray(a_d * np.logaddexp(a_n / a_d * (np.log(n_c) - points.log_n), np.log(d_c) - points.log_d))
