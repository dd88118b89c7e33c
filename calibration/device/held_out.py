"""How well constants predict kernels that they were not fitted to: fit every other one, score the rest."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

from calibration.device.fit import fit
from calibration.device.observations import Observation
from simulator.components import Kind


@dataclass(frozen=True)
class HeldOut:
    """Absolute relative errors of one sort of observation."""

    name: str
    count: int
    median: float
    worst: float


def held_out_errors(observations: Sequence[Observation], own_launches: Collection[Kind]) -> list[HeldOut]:
    """Fit the observations at even places of each sort, and tell the error of those at odd places, in the order given."""
    places: dict[str, int] = defaultdict(int)
    fitted: list[Observation] = []
    scored: list[Observation] = []
    for observation in observations:
        (scored if places[observation.name] % 2 else fitted).append(observation)
        places[observation.name] += 1
    found = fit(fitted, own_launches).coefficients
    errors: dict[str, list[float]] = defaultdict(list)
    for observation in scored:
        if all(quantity in found for quantity in observation.work):
            predicted = sum(amount * found[quantity].value for quantity, amount in observation.work.items())
            errors[observation.name].append(abs(predicted / observation.seconds - 1))
    return [HeldOut(name, len(found_errors), median(found_errors), max(found_errors)) for name, found_errors in errors.items()]
