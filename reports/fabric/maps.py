"""What holds a step back over two parameters at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configuration.errors import ConfigurationError
from reports.fabric.knobs import LATENCY, OVERSUBSCRIPTION, RATE, SEQUENCE, Knob
from reports.fabric.turning import NETWORK_BOUND, Study

COLUMNS, ROWS = 13, 9
PAIRS = ((RATE, OVERSUBSCRIPTION), (RATE, SEQUENCE), (RATE, LATENCY))
"""Axes of the maps: across, upwards."""


@dataclass(frozen=True)
class RegionMap:
    """One model: ``bound[row][column]`` names what holds the step back at ``y[row]``, ``x[column]``; empty where that cannot be predicted."""

    model: str
    across: Knob
    upwards: Knob
    x: tuple[float, ...]
    y: tuple[float, ...]
    bound: tuple[tuple[str, ...], ...]
    now: tuple[float, float]

    def told(self, row: int) -> str:
        """Between which neighbouring values across the step of a row turns network-bound, and what holds it back on the other side."""
        names = self.bound[row]
        held = [name == NETWORK_BOUND for name in names]
        if not any(names):
            return "–"
        if all(held):
            return "network-bound throughout"
        turn = next((i for i in range(len(held) - 1) if held[i] != held[i + 1]), None)
        if turn is None:
            return f"never ({' and '.join(dict.fromkeys(filter(None, names)))})"
        way, other = ("below", names[turn + 1]) if held[turn] else ("above", names[turn])
        return f"{way} {self.across.show(self.x[turn])} to {self.across.show(self.x[turn + 1])}, else {other}"


def region_map(study: Study, across: Knob, upwards: Knob) -> RegionMap | None:
    """Predict the grid; None where a knob does not apply to the model or the fabric."""
    now = across.now(study.question), upwards.now(study.question)
    if now[0] is None or now[1] is None:
        return None
    x, y = _grid(across, COLUMNS), _grid(upwards, ROWS)
    bound = tuple(tuple(_bound(study, {across: a, upwards: b}) for a in x) for b in y)
    return RegionMap(study.model, across, upwards, x, y, bound, (now[0], now[1])) if any(any(row) for row in bound) else None


def _grid(knob: Knob, most: int) -> tuple[float, ...]:
    """Whole numbers as they are, others spread evenly in the logarithm over the knob's range."""
    return knob.values if knob.whole else tuple(np.geomspace(knob.values[0], knob.values[-1], most).tolist())


def _bound(study: Study, values: dict[Knob, float]) -> str:
    changes: dict[str, dict[str, object]] = {}
    for knob, value in values.items():
        for owner, fields in knob.change(study.question.network.fabric, value).items():
            changes.setdefault(owner, {}).update(fields)
    try:
        return study.predict(changes).bottleneck
    except ConfigurationError:
        return ""


def maps(studies: Sequence[Study]) -> list[list[RegionMap]]:
    """For each pair of axes the maps of all models to which it applies."""
    found = [[region_map(study, *pair) for study in studies] for pair in PAIRS]
    return [drawn for row in found if (drawn := [each for each in row if each is not None])]
