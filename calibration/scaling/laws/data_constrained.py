"""Data-constrained: repeated tokens, and parameters beyond what the unique tokens can feed, count for less and less."""

from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import FittedLaw, Parameter, Published, exponent, scale
from calibration.scaling.points import Floats, Points
from calibration.scaling.projection import projected

R_D_START, R_N_START = 2.7, 1.7
"""ln of the published R_D* and R_N*, where projected starts begin."""


def half_life(name: str) -> Parameter:
    """A number of repetitions after which more of the same is worth e times less."""
    return Parameter(name, True, (-1.5, 7.0), (0.5, 4.0))


class DataConstrained(FittedLaw):
    """L = E + A / N'^alpha + B / D'^beta with U unique tokens (Muennighoff et al. 2023).

    D' = U + U R_D (1 - exp(-R / R_D)), R = D / U - 1. N' likewise of U_N = min(N, the size that is compute-optimal for U tokens) and R_N.
    """

    name = "data-constrained"
    title = "Data-constrained"
    formula = "L = E + A / N'^alpha + B / D'^beta, D' = U + U R_D (1 - exp(-(D/U - 1) / R_D)), N' likewise with U_N and R_N"
    source = "Muennighoff et al. 2023, arXiv 2305.16264"
    parameters = (scale("E"), scale("A"), scale("B"), exponent("alpha"), exponent("beta"), half_life("R_D"), half_life("R_N"))
    variables = ("n", "d", "u")
    levels: ClassVar[Mapping[str, int]] = {"u": 2}
    published: ClassVar[Mapping[str, Published]] = {
        "muennighoff": Published(
            {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353, "R_D": 15.387756, "R_N": 5.309743},
            "Muennighoff et al. 2023, arXiv 2305.16264",
        ),
    }

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """ln E, ln A - alpha ln N', ln B - beta ln D'; slopes follow N' through the optimal size, which depends on the coefficients."""
        import numpy as np

        e, a, b, alpha, beta, r_d, r_n = (theta[:, k, None] for k in range(7))
        log_unique = np.minimum(points.log_u, points.log_d)
        log_d, d_by_r, _ = discounted(points.log_d[None], log_unique[None], r_d)

        ratio = beta / alpha
        log_g = (np.log(alpha) + a - np.log(beta) - b) / (alpha + beta)
        log_fed = log_g + ratio * (log_g + log_unique)
        beyond = points.log_n > log_fed
        log_n, n_by_r, n_by_fed = discounted(np.broadcast_to(points.log_n, log_fed.shape), np.minimum(points.log_n, log_fed), r_n)
        n_by_fed = np.where(beyond, n_by_fed, 0.0)
        g_by = {1: 1.0, 2: -1.0, 3: 1 / alpha - log_g, 4: -1 / beta - log_g}
        ratio_by = {1: 0.0, 2: 0.0, 3: -beta / alpha**2, 4: 1 / alpha}

        logs = np.stack([np.broadcast_to(e, log_n.shape), a - alpha * log_n, b - beta * log_d], axis=1)
        slopes = np.zeros((*logs.shape, 7))
        slopes[:, 0, :, 0] = slopes[:, 1, :, 1] = slopes[:, 2, :, 2] = 1
        for k in range(1, 5):
            slopes[:, 1, :, k] -= alpha * n_by_fed * ((1 + ratio) * g_by[k] / (alpha + beta) + (log_g + log_unique) * ratio_by[k])
        slopes[:, 1, :, 3] -= log_n
        slopes[:, 2, :, 4] = -log_d
        slopes[:, 2, :, 5] = -beta * d_by_r
        slopes[:, 1, :, 6] = -alpha * n_by_r
        return logs, slopes

    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """A' = A exp(-alpha shift), B' likewise; repetitions are ratios and stay."""
        moved = theta.copy()
        moved[..., 1] -= theta[..., 3] * by_log_n
        moved[..., 2] -= theta[..., 4] * by_log_d
        return moved

    def projected_starts(self, points: Points) -> Floats:
        """Those of the law without repetition, with the published half lives."""
        import numpy as np

        starts = projected(points)
        return np.concatenate([starts, np.tile([R_D_START, R_N_START], (len(starts), 1))], axis=1)

    def refusal(self, points: Points) -> str | None:
        """Without repetition nothing is known of its worth."""
        if (points.log_d - points.log_u > 0.01).sum() < 3:
            return "fewer than three runs repeat their data (unique_tokens below tokens)"
        return None


def discounted(log_used: Floats, log_unique: Floats, log_half_life: Floats) -> tuple[Floats, Floats, Floats]:
    """ln of the effective quantity, and its derivatives by ln of the half life and by ln of the unique quantity (used held)."""
    import numpy as np

    r = np.exp(log_half_life)
    # Far starts ask for absurd repetition: beyond e^30 repeats nothing changes any more.
    repeats = np.expm1(np.clip(log_used - log_unique, 0.0, 30.0))
    worth = np.exp(-repeats / r)
    effective = 1 + r * (1 - worth)
    by_half_life = (r * (1 - worth) - repeats * worth) / effective
    by_unique = 1 - worth * (repeats + 1) / effective
    return log_unique + np.log(effective), by_half_life, by_unique
