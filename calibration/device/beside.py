"""Element-wise kernels that no constant is fitted to: which of the two rates of traffic they take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from calibration.device.fit import Coefficient
from calibration.device.observations import Observation, Quantity
from simulator.components import Kind

CONTIGUOUS, IRREGULAR = Quantity("bytes", Kind.POINTWISE), Quantity("irregular_bytes", Kind.POINTWISE)


@dataclass(frozen=True)
class Beside:
    """One sort of kernel; predicted over measured minus one, the median, at either rate. ``irregular`` is None where no such rate was fitted."""

    name: str
    count: int
    contiguous: float
    irregular: float | None


def residuals_beside(observations: Sequence[Observation], found: Mapping[Quantity, Coefficient]) -> list[Beside]:
    """By the name of the ``observations``, whose work is priced as contiguous."""
    named: dict[str, list[Observation]] = {}
    for observation in observations:
        named.setdefault(observation.name, []).append(observation)
    rates = [found[rate].value if rate in found else None for rate in (CONTIGUOUS, IRREGULAR)]
    rows = []
    for name, ones in named.items():
        contiguous, irregular = (None if rate is None else median(_residual(one, found, rate) for one in ones) for rate in rates)
        if contiguous is not None:
            rows.append(Beside(name, len(ones), contiguous, irregular))
    return rows


def _residual(observation: Observation, found: Mapping[Quantity, Coefficient], per_byte_s: float) -> float:
    """A quantity that was not fitted costs nothing."""
    prices = {quantity: found[quantity].value for quantity in observation.work if quantity in found} | {CONTIGUOUS: per_byte_s}
    return sum(amount * prices.get(quantity, 0.0) for quantity, amount in observation.work.items()) / observation.seconds - 1
