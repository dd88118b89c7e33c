"""Joint MoE whose terms of N and D join in a p-norm: the scarcer of the two counts for more than it does in a sum."""

import math
from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import Parameter, Published, log_sum_exp
from calibration.scaling.laws.joint_moe_fixed import JointMoeFixed
from calibration.scaling.points import Floats, Points

PROJECTED = (1.1, 1.5, 2.5)
"""Values of p that projected starts are tried with."""


class JointMoeNorm(JointMoeFixed):
    """The joint law with published saturation, of whose terms x of N and y of D the loss takes (x^p + y^p)^(1/p) + c.

    p >= 1; 1 is the joint law. With more, a small model gains less from tokens than a large one does, and few tokens less from parameters; with endless p
    only the larger term counts. Kaplan's law (2020, arXiv 2001.08361, equation 1.5) is of this kind, with p = 1 / a_D, about 10, and no floor.
    """

    name = "joint-moe-norm"
    title = "Joint MoE, terms in a p-norm"
    formula = "L = (x^p + y^p)^(1/p) + c, x = a E'^delta N^(alpha + gamma ln E'), y = b E'^omega D^(beta + zeta ln E'), E_start = 2.0732, E_max = 290.4521"
    parameters = (*JointMoeFixed.parameters, Parameter("p", True, (0.0, math.log(30.0)), (0.0, math.log(4.0))))
    published: ClassVar[Mapping[str, Published]] = {}

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """ln c, and ln of the norm of the joint law's two other terms."""
        import numpy as np

        logs, slopes = super().terms(theta[:, :-1], points)
        p = np.exp(theta[:, -1, None, None])
        joined, shares = log_sum_exp(p * logs[:, 1:])
        joined = joined / p[:, 0]
        found = np.zeros((*logs.shape[:1], 2, len(points), len(self.parameters)))
        found[:, 0, :, :-1] = slopes[:, 0]
        found[:, 1, :, :-1] = (shares[..., None] * slopes[:, 1:]).sum(axis=1)
        found[:, 1, :, -1] = (shares * logs[:, 1:]).sum(axis=1) - joined
        return np.stack([logs[:, 0], joined], axis=1), found

    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """As the joint law; p has no units."""
        import numpy as np

        return np.concatenate([super().recentred(theta[..., :-1], by_log_n, by_log_d), theta[..., -1:]], axis=-1)

    def projected_starts(self, points: Points) -> Floats:
        """Those of the joint law, with several p."""
        import numpy as np

        starts = super().projected_starts(points)
        return np.concatenate([np.column_stack([starts, np.full(len(starts), math.log(p))]) for p in PROJECTED])
