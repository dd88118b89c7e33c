"""Effective number of experts: E saturates towards E_max, and starts at E_start for a dense model (Clark et al. 2022, arXiv 2202.01169)."""

from calibration.scaling.laws.base import Parameter
from calibration.scaling.points import Floats

LARGEST_START, SMALLEST_MAX = 32.0, 33.0
"""E_start < E_max must hold; disjoint ranges see to it, and hold all published values (1.8 to 4.2; 290 to 478)."""


def start_parameter() -> Parameter:
    """E_start: what one expert counts for."""
    import math

    return Parameter("E_start", True, (0.0, math.log(LARGEST_START)), (0.2, 1.5))


def max_parameter() -> Parameter:
    """E_max: what endlessly many experts count for."""
    import math

    return Parameter("E_max", True, (math.log(SMALLEST_MAX), math.log(1e6)), (math.log(100), math.log(1000)))


def log_effective_experts(log_start: Floats, log_max: Floats, log_e: Floats) -> tuple[Floats, Floats, Floats]:
    """ln of effective experts, and its derivatives by ln E_start and by ln E_max; all of the shape that the arguments broadcast to.

    1 / E_eff = 1 / (E - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max
    """
    import numpy as np

    start, most = np.exp(log_start), np.exp(log_max)
    offset = 1 / (1 / start - 1 / most)
    shifted = np.exp(log_e) - 1 + offset
    effective = 1 / (1 / shifted + 1 / most)
    part = (offset / shifted) ** 2
    return np.log(effective), effective * part / start, effective * (1 - part) / most
