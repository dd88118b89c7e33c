"""Joint MoE: loss against active parameters, tokens and experts; for each number of experts a Chinchilla law."""

from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import FittedLaw, Parameter, Published, scale
from calibration.scaling.laws.effective_experts import log_effective_experts, max_parameter, start_parameter
from calibration.scaling.points import Floats, Points
from calibration.scaling.projection import projected

START = (0.0, 0.0, 0.7, 5.7)
"""delta and gamma (omega and zeta) of no effect of experts; ln E_start and ln E_max near the published values: where projected starts begin."""


def _fall(name: str) -> Parameter:
    """An exponent with its sign inside: the term falls with the quantity."""
    return Parameter(name, False, (-3.0, -1e-3), (-0.9, -0.05))


def _by_experts(name: str, reach: float) -> Parameter:
    return Parameter(name, False, (-reach, reach), (-0.05 * reach, 0.05 * reach))


class JointMoe(FittedLaw):
    """L = a E'^delta N^(alpha + gamma ln E') + b E'^omega D^(beta + zeta ln E') + c; N active parameters, E' effective experts (Ludziejewski et al. 2025)."""

    name = "joint-moe"
    title = "Joint MoE"
    formula = "L = a E'^delta N^(alpha + gamma ln E') + b E'^omega D^(beta + zeta ln E') + c, 1/E' = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max"
    source = "Ludziejewski et al. 2025, arXiv 2502.05172"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        scale("a"),
        _fall("alpha"),
        _by_experts("delta", 5.0),
        _by_experts("gamma", 0.5),
        scale("b"),
        _fall("beta"),
        _by_experts("omega", 5.0),
        _by_experts("zeta", 0.5),
        start_parameter(),
        max_parameter(),
        scale("c"),
    )
    variables = ("n", "d", "e")
    floor = "c"
    levels: ClassVar[Mapping[str, int]] = {"e": 4}
    """A factor and an exponent linear in ln E' leave each level beyond two to tell one parameter of the saturation."""
    published: ClassVar[Mapping[str, Published]] = {
        "ludziejewski": Published(
            {
                "a": 35.91, "alpha": -0.1889, "delta": -0.2285, "gamma": 0.0098, "b": 35.98, "beta": -0.1775, "omega": 0.5529, "zeta": -0.0259,
                "E_start": 2.0732, "E_max": 290.4521, "c": 1.3637,
            },
            "Ludziejewski et al. 2025, arXiv 2502.05172",
        ),
    }  # fmt: skip

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """ln c, and for N and D: factor, exponent, and what effective experts make of both."""
        import numpy as np

        a, alpha, delta, gamma, b, beta, omega, zeta, start, most, c = (theta[:, k, None] for k in range(11))
        x, by_start, by_max = log_effective_experts(start, most, points.log_e)
        slopes = np.zeros((len(theta), 3, len(points), 11))
        logs = [np.broadcast_to(c, x.shape)]
        slopes[:, 0, :, 10] = 1
        for term, (first, factor, fall, of_factor, of_fall, y) in enumerate(
            ((0, a, alpha, delta, gamma, points.log_n), (4, b, beta, omega, zeta, points.log_d)), start=1
        ):
            logs.append(factor + of_factor * x + (fall + of_fall * x) * y)
            by_x = of_factor + of_fall * y
            for offset, slope in enumerate((1.0, y, x, x * y)):
                slopes[:, term, :, first + offset] = slope
            slopes[:, term, :, 8] = by_x * by_start
            slopes[:, term, :, 9] = by_x * by_max
        return np.stack(logs, axis=1), slopes

    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """ln a' = ln a + alpha shift, delta' = delta + gamma shift; b and omega likewise."""
        moved = theta.copy()
        for first, shift in ((0, by_log_n), (4, by_log_d)):
            moved[..., first] += theta[..., first + 1] * shift
            moved[..., first + 2] += theta[..., first + 3] * shift
        return moved

    def projected_starts(self, points: Points) -> Floats:
        """Those of the law that knows no experts."""
        import numpy as np

        no_effect, also_none, start, most = START
        return np.array([
            [a, -alpha, no_effect, also_none, b, -beta, no_effect, also_none, start, most, e] for e, a, b, alpha, beta in projected(points)
        ])  # fmt: skip


def for_experts(law: JointMoe, theta: Floats, experts: float) -> dict[str, float]:
    """The Chinchilla law at a number of experts, L = c + m N^mu + n D^nu: the coefficients m, mu, n, nu of one theta [11]."""
    import numpy as np

    a, alpha, delta, gamma, b, beta, omega, zeta, start, most, _ = theta
    x = float(log_effective_experts(start, most, np.log(experts))[0])
    return {"m": float(np.exp(a + delta * x)), "mu": float(alpha + gamma * x), "n": float(np.exp(b + omega * x)), "nu": float(beta + zeta * x)}
