"""Joint MoE with the published saturation of experts, for tables with two or three levels of E."""

import math
from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import Published
from calibration.scaling.laws.joint_moe import JointMoe
from calibration.scaling.points import Floats, Points

SATURATION = slice(8, 10)
"""Where E_start and E_max stand in the joint law's theta."""


class JointMoeFixed(JointMoe):
    """The joint law with E_start = 2.0732 and E_max = 290.4521 held.

    From two or three levels of E no saturation can be learnt: any curve through them fits. Its shape between and beyond the table's levels is borrowed.
    """

    name = "joint-moe-fixed"
    title = "Joint MoE, published saturation"
    formula = "L = a E'^delta N^(alpha + gamma ln E') + b E'^omega D^(beta + zeta ln E') + c, E_start = 2.0732, E_max = 290.4521"
    parameters = (*JointMoe.parameters[:8], JointMoe.parameters[10])
    levels: ClassVar[Mapping[str, int]] = {"e": 2}
    published: ClassVar[Mapping[str, Published]] = {
        name: Published({key: value for key, value in whole.coefficients.items() if key not in ("E_start", "E_max")}, whole.source)
        for name, whole in JointMoe.published.items()
    }

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """Those of the joint law, without the slopes of what is held."""
        import numpy as np

        logs, slopes = super().terms(_whole(theta), points)
        return logs, np.concatenate([slopes[..., : SATURATION.start], slopes[..., SATURATION.stop :]], axis=-1)

    def projected_starts(self, points: Points) -> Floats:
        """Those of the joint law."""
        import numpy as np

        starts = super().projected_starts(points)
        return np.concatenate([starts[:, : SATURATION.start], starts[:, SATURATION.stop :]], axis=1)


def _whole(theta: Floats) -> Floats:
    import numpy as np

    coefficients = JointMoe.published["ludziejewski"].coefficients
    held = [math.log(coefficients["E_start"]), math.log(coefficients["E_max"])]
    return np.concatenate([theta[..., :8], np.broadcast_to(held, (*theta.shape[:-1], 2)), theta[..., 8:]], axis=-1)
