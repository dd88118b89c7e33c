"""Joint MoE with the published saturation of experts, for tables with two or three levels of E."""

import math
from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import Published
from calibration.scaling.laws.joint_moe import JointMoe
from calibration.scaling.points import Floats, Points

PUBLISHED = JointMoe.published["ludziejewski"].coefficients
SATURATION = {8: math.log(PUBLISHED["E_start"]), 9: math.log(PUBLISHED["E_max"])}
"""Where E_start and E_max stand in the joint law's theta, and what is held there."""


class JointMoeFixed(JointMoe):
    """The joint law with E_start = 2.0732 and E_max = 290.4521 held.

    From two or three levels of E no saturation can be learnt: any curve through them fits. Its shape between and beyond the table's levels is borrowed.
    """

    name = "joint-moe-fixed"
    title = "Joint MoE, published saturation"
    formula = "L = a E'^delta N^(alpha + gamma ln E') + b E'^omega D^(beta + zeta ln E') + c, E_start = 2.0732, E_max = 290.4521"
    held: ClassVar[Mapping[int, float]] = SATURATION
    parameters = tuple(parameter for index, parameter in enumerate(JointMoe.parameters) if index not in SATURATION)
    levels: ClassVar[Mapping[str, int]] = {"e": 2}
    published: ClassVar[Mapping[str, Published]] = {
        "ludziejewski": Published(
            {key: value for key, value in PUBLISHED.items() if key not in ("E_start", "E_max")}, JointMoe.published["ludziejewski"].source
        ),
    }

    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """Those of the joint law, without the slopes of what is held."""
        logs, slopes = super().terms(self._whole(theta), points)
        return logs, slopes[..., self._free()]

    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """As the joint law."""
        return super().recentred(self._whole(theta), by_log_n, by_log_d)[..., self._free()]

    def projected_starts(self, points: Points) -> Floats:
        """Those of the joint law."""
        return super().projected_starts(points)[:, self._free()]

    def _free(self) -> list[int]:
        return [index for index in range(len(JointMoe.parameters)) if index not in self.held]

    def _whole(self, theta: Floats) -> Floats:
        """The joint law's theta [..., 11]."""
        import numpy as np

        whole = np.empty((*theta.shape[:-1], len(JointMoe.parameters)))
        whole[..., self._free()] = theta
        for index, value in self.held.items():
            whole[..., index] = value
        return whole
