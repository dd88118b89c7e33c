"""Joint MoE where experts only make a model count for more: the smallest law of N, D and E, for small tables."""

from collections.abc import Mapping
from typing import ClassVar

from calibration.scaling.laws.base import Published
from calibration.scaling.laws.joint_moe import JointMoe
from calibration.scaling.laws.joint_moe_fixed import SATURATION, JointMoeFixed


class JointMoeSize(JointMoeFixed):
    """The joint law with gamma = omega = zeta = 0 and the published saturation: experts multiply the term of N, by the same factor at every size.

    Nested in the joint law; no coefficients are published for it.
    """

    name = "joint-moe-size"
    title = "Joint MoE, experts as size"
    formula = "L = a E'^delta N^alpha + b D^beta + c, E_start = 2.0732, E_max = 290.4521"
    held: ClassVar[Mapping[int, float]] = {3: 0.0, 6: 0.0, 7: 0.0, **SATURATION}
    parameters = tuple(parameter for index, parameter in enumerate(JointMoe.parameters) if index not in (3, 6, 7, *SATURATION))
    published: ClassVar[Mapping[str, Published]] = {}
