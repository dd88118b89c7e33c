"""Runs gathered into settings (what was trained on how much), with the mean loss of their seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import stdev

import numpy as np

from calibration.scaling.points import points_of
from simulator.records.run_table import RunRow

SAME_LEVEL = 0.01
"""Two values of a quantity whose logarithms differ by no more than this are one level."""


@dataclass(frozen=True)
class Setting:
    """All runs of one N, D and architecture of experts. ``error``: standard error of the mean loss, None when the table has none.

    ``n_level`` and ``d_level`` number the distinct values of N and D in the table, from the smallest.
    """

    n: float
    d: float
    n_level: int
    d_level: int
    experts: tuple[float, float, float]
    loss: float
    error: float | None
    flops: float
    runs: tuple[str, ...]


def settings_of(rows: Sequence[RunRow], count: str) -> list[Setting]:
    """Rows gathered; ``count`` says what N counts, FLOPs that a row lacks are 6 N D. Raises ConfigurationError for a count that is unknown or a row lacks."""
    points = points_of(rows, count)
    ns, ds, all_flops = (np.rint(np.exp(logs)).tolist() for logs in (points.log_n, points.log_d, points.log_c))
    n_levels, d_levels = _levels(ns), _levels(ds)
    groups: dict[tuple[int, int, tuple[float, float, float]], list[int]] = {}
    for place, row in enumerate(rows):
        experts = (float(row.experts), float(row.top_k), row.granularity)
        groups.setdefault((n_levels[place], d_levels[place], experts), []).append(place)
    found = []
    for (n_level, d_level, experts), places in groups.items():
        members = [rows[place] for place in places]
        losses = [row.validation_loss_nats_per_token for row in members]
        found.append(
            Setting(
                n=_mean([ns[place] for place in places]), d=_mean([ds[place] for place in places]), n_level=n_level, d_level=d_level, experts=experts,
                loss=_mean(losses), error=_error(members, losses), flops=_mean([all_flops[place] for place in places]), runs=tuple(row.run for row in members),
            )
        )  # fmt: skip
    return sorted(found, key=lambda setting: (setting.d_level, setting.n_level, setting.experts))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _error(rows: Sequence[RunRow], losses: Sequence[float]) -> float | None:
    """The larger of what the validation set's sampling and what the spread of seeds give."""
    sampled = [row.validation_loss_standard_error_nats_per_token for row in rows]
    # Seeds share the validation set: averaging them does not make its own error smaller.
    known = [error for error in sampled if error is not None]
    from_validation = _mean(known) if len(known) == len(rows) else None
    from_seeds = stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else None
    errors = [error for error in (from_validation, from_seeds) if error is not None]
    return max(errors) if errors else None


def _levels(values: Sequence[float]) -> list[int]:
    order = sorted(range(len(values)), key=lambda place: values[place])
    levels = [0] * len(values)
    for before, after in pairwise(order):
        levels[after] = levels[before] + (math.log(values[after] / values[before]) > SAME_LEVEL)
    return levels


def flops_unit(largest_flops: float) -> tuple[float, str]:
    """Divisor and name of the unit for numbers that reach ``largest_flops``."""
    units = ((1e21, "ZFLOP"), (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"))
    return next(((scale, unit) for scale, unit in units if largest_flops >= scale), (1e9, "GFLOP"))
