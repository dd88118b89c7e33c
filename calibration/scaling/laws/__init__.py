"""All scaling laws, one file each; a new law is a file and a line here."""

from calibration.scaling.laws.base import FittedLaw, Law
from calibration.scaling.laws.chinchilla import Chinchilla
from calibration.scaling.laws.data_constrained import DataConstrained
from calibration.scaling.laws.fine_grained import FineGrained
from calibration.scaling.laws.joint_moe import JointMoe
from calibration.scaling.laws.joint_moe_fixed import JointMoeFixed
from calibration.scaling.laws.joint_moe_norm import JointMoeNorm
from calibration.scaling.laws.joint_moe_size import JointMoeSize
from calibration.scaling.laws.kaplan import Kaplan
from calibration.scaling.laws.routed import Routed
from calibration.scaling.laws.sparsity import Sparsity
from calibration.scaling.laws.tied import Tied
from configuration.errors import ConfigurationError, unknown

_ALL: tuple[Law, ...] = (
    Chinchilla(), Tied(), DataConstrained(), Routed(), JointMoe(), JointMoeFixed(), JointMoeSize(), JointMoeNorm(), Kaplan(), FineGrained(), Sparsity(),
)  # fmt: skip
LAWS: dict[str, Law] = {law.name: law for law in _ALL}


def law_named(name: str) -> Law:
    """The law of that name. Raises ConfigurationError for an unknown one."""
    if name not in LAWS:
        raise unknown("law", name, LAWS)
    return LAWS[name]


def fitted_law_named(name: str) -> FittedLaw:
    """The law of that name when it can be fitted. Raises ConfigurationError for one that is only evaluated with published coefficients."""
    law = law_named(name)
    if not isinstance(law, FittedLaw):
        legal = ", ".join(known for known, candidate in LAWS.items() if isinstance(candidate, FittedLaw))
        raise ConfigurationError(f"law {name}: only its published coefficients are offered, it is not fitted (fitted: {legal})")
    return law
