"""Loss against the position in the sequence, and whether the sequence length is a limit.

A position is counted from 1: it is the number of tokens that its prediction may look at. Shapes: N windows, S sequence length,
Q a quarter of it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.inspection.held_out import HeldOut

LEVEL = 0.05
"""A fall is believed when chance alone would show as much in fewer than one of twenty looks."""


@dataclass(frozen=True)
class PositionRange:
    """Mean loss over positions ``first`` to ``last``."""

    first: int
    last: int
    loss_nats_per_token: float
    standard_error_nats_per_token: float | None
    """Over the means of the windows, taken as independent; None for a single window."""


@dataclass(frozen=True)
class Trend:
    """Slope of the loss over the last quarter of the positions, against the base-2 logarithm of the position.

    The same tokens are predicted twice: at their positions, and a quarter of the sequence earlier, with the window's first quarter hidden. The
    difference is free of what makes one token harder than another, which along a window would drown any slope. Each window gives the mean
    difference over its last quarter; the mean over windows is held against 0 by a one-sided t-test, windows taken as independent.
    """

    first: int
    last: int
    slope_nats_per_doubling: float
    standard_error_nats_per_doubling: float
    p_value: float
    """Chance of a slope this low or lower if there were none."""
    lower_bound_nats_per_doubling: float
    """95 % one-sided bound: the slope is not lower."""

    @property
    def falls(self) -> bool:
        """The loss still falls at the last position, beyond chance."""
        return self.p_value < LEVEL


@dataclass(frozen=True)
class LossByPosition:
    """Everything that the held-out losses say about position."""

    windows: int
    losses_S: tuple[float, ...]
    """Mean loss at each position, nats."""
    ranges: tuple[PositionRange, ...]
    """1, 2, 3-4, 5-8 and so on, and the whole sequence as the last."""
    trend: Trend | None
    """None with fewer than two windows, or fewer than two positions in a quarter."""

    @property
    def verdict(self) -> str:
        """Whether the sequence length is a limit, in words."""
        length, trend = len(self.losses_S), self.trend
        if trend is None:
            return f"{self.windows} window(s) of {length} positions are too few to tell whether the sequence length is a limit."
        found = (
            f"over positions {trend.first} to {trend.last} the loss changes by {trend.slope_nats_per_doubling:+.4f} ± "
            f"{trend.standard_error_nats_per_doubling:.4f} nats per doubling of the position (same tokens, a quarter less to look at; "
            f"one-sided p = {trend.p_value:.2g}, {self.windows} windows)"
        )
        if trend.falls:
            return f"The loss still falls at the last position: {found}. The sequence length of {length} is a limit; a longer one would lower the loss."
        bound = -trend.lower_bound_nats_per_doubling
        excluded = f"a fall of more than {bound:.4f} nats per doubling" if bound > 0 else "any fall"
        return (
            f"The loss does not fall at the last position beyond its standard error: {found}. That the sequence length of {length} is a limit is not "
            f"shown; {excluded} is excluded at {1 - LEVEL:.0%}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain content for JSON."""
        return {
            "windows": self.windows,
            "sequence": len(self.losses_S),
            "ranges": [vars(part) for part in self.ranges],
            "trend": None if self.trend is None else vars(self.trend) | {"falls": self.trend.falls},
            "verdict": self.verdict,
            "losses_nats_per_token": list(self.losses_S),
        }


def loss_by_position(held_out: HeldOut) -> LossByPosition:
    """Average the losses of held-out windows by position and test the last quarter for a fall."""
    losses_NS = held_out.losses_NS
    windows, length = losses_NS.shape
    bounds = [(0, 1), *((2**power, min(2 ** (power + 1), length)) for power in range(max(1, length - 1).bit_length()) if 2**power < length), (0, length)]
    ranges = tuple(PositionRange(start + 1, end, *mean_and_error(losses_NS[:, start:end].mean(1))) for start, end in bounds)
    return LossByPosition(windows, tuple(losses_NS.mean(0).tolist()), ranges, _trend(held_out))


def mean_and_error(values_N: np.ndarray) -> tuple[float, float | None]:
    """Mean and its standard error, None for a single value."""
    count = len(values_N)
    return float(values_N.mean()), float(values_N.std(ddof=1)) / math.sqrt(count) if count > 1 else None


def _trend(held_out: HeldOut) -> Trend | None:
    from scipy import stats

    windows, length = held_out.losses_NS.shape
    quarter = length // 4
    if quarter < 2 or windows < 2:
        return None
    position_Q = np.arange(length - quarter + 1, length + 1)
    doublings = float(np.log2(position_Q / (position_Q - quarter)).mean())
    slope, error = mean_and_error((held_out.losses_NS[:, -quarter:] - held_out.shortened_NQ).mean(1) / doublings)
    assert error is not None
    # Equal windows have no error: the slope is then certain, and a distribution of scale 0 is not defined.
    p_value = float(stats.t.cdf(slope / error, windows - 1)) if error else float(slope >= 0)
    bound = slope - float(stats.t.ppf(1 - LEVEL, windows - 1)) * error
    return Trend(length - quarter + 1, length, slope, error, p_value, bound)
