"""Local slopes of the loss: what a doubling of parameters or of tokens gained between neighbouring runs, and what it cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from reports.scaling.settings import Setting

Variable = Literal["parameters", "tokens"]
VARIABLES: tuple[Variable, ...] = ("parameters", "tokens")
CERTAIN = 2.0
"""Gains that differ by fewer standard errors than this are not told apart."""

CLOSEST_DOUBLINGS = 0.25
"""Neighbours nearer than this give no slope: their difference is noise divided by little."""


@dataclass(frozen=True)
class Slope:
    """From ``low`` to ``high``, which differ in ``variable`` alone. Gains are positive where the loss falls.

    ``error`` takes the two losses as independent; runs that share their validation set differ by less.
    """

    variable: Variable
    low: Setting
    high: Setting

    @property
    def doublings(self) -> float:
        """How many doublings of the variable lie between the two."""
        return math.log2(_value(self.high, self.variable) / _value(self.low, self.variable))

    @property
    def gain(self) -> float:
        """Nats per token for a doubling."""
        return (self.low.loss - self.high.loss) / self.doublings

    @property
    def error(self) -> float | None:
        """Standard error of ``gain``; None when the table gives no errors."""
        if self.low.error is None or self.high.error is None:
            return None
        return math.hypot(self.low.error, self.high.error) / self.doublings

    @property
    def gain_per_flop(self) -> float | None:
        """Nats per token for each FLOP that the larger run spent more; None where it spent no more."""
        more = self.high.flops - self.low.flops
        return (self.low.loss - self.high.loss) / more if more > 0 else None


def _value(setting: Setting, variable: Variable) -> float:
    return setting.n if variable == "parameters" else setting.d


def series(settings: Sequence[Setting], variable: Variable) -> list[list[Setting]]:
    """Settings that differ in ``variable`` alone, in its order; series of one are left out."""
    groups: dict[tuple[object, ...], list[Setting]] = {}
    for setting in settings:
        groups.setdefault((setting.d_level if variable == "parameters" else setting.n_level, setting.experts), []).append(setting)
    return [sorted(group, key=lambda setting: _value(setting, variable)) for group in groups.values() if len(group) > 1]


def slopes(settings: Sequence[Setting], variable: Variable) -> list[Slope]:
    """Slopes between neighbours of every series, those too near to each other left out."""
    found = [Slope(variable, low, high) for group in series(settings, variable) for low, high in pairwise(group)]
    return [slope for slope in found if slope.doublings >= CLOSEST_DOUBLINGS]


def last_doublings(settings: Sequence[Setting]) -> tuple[Slope, Slope] | None:
    """The slopes in parameters and in tokens that both end at one setting, the one that cost most FLOPs; None when there is none."""
    ends = {(slope.variable, id(slope.high)): slope for variable in VARIABLES for slope in slopes(settings, variable)}
    both = [setting for setting in settings if ("parameters", id(setting)) in ends and ("tokens", id(setting)) in ends]
    if not both:
        return None
    end = max(both, key=lambda setting: setting.flops)
    return ends["parameters", id(end)], ends["tokens", id(end)]


@dataclass(frozen=True)
class Straightness:
    """How straight a series is (coefficient of determination of a line): against the variable itself, and against its logarithm."""

    variable: Variable
    series: tuple[Setting, ...]
    plain: float
    logarithmic: float


def straightness(settings: Sequence[Setting], variable: Variable) -> Straightness | None:
    """Of the longest series with four settings or more; None when there is none."""
    longest = max(series(settings, variable), key=len, default=[])
    if len(longest) < 4:
        return None
    x = [_value(setting, variable) for setting in longest]
    y = [setting.loss for setting in longest]
    return Straightness(variable, tuple(longest), _determination(x, y), _determination([math.log(value) for value in x], y))


def _determination(x: Sequence[float], y: Sequence[float]) -> float:
    from statistics import correlation

    return correlation(x, y) ** 2 if len(set(y)) > 1 else 1.0
