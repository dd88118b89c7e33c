"""Benchmarks at 16,384 endpoints beside a yardstick; run with --benchmark-enable. Without it each runs once and its result is checked."""

from typing import Any

import numpy as np

from fabrics.cost import cost
from fabrics.loading import load_fabric

GROUPS = [tuple(range(first, first + 64)) for first in range(0, 16_384, 64)]
SIZE = 64e6


def test_pricing_all_groups_of_64_at_once(benchmark: Any) -> None:
    fabric = load_fabric("meta-24k-roce")

    def priced() -> float:
        fabric.cache.clear()
        return float(cost(fabric, "all-to-all", GROUPS, SIZE).time_s[0])

    # Rail after rail a rank sends what 7 other nodes get: 56 of 64 parts over its own port, and nothing else is narrower.
    assert benchmark(priced) > 56 / 64 * SIZE / 50e9


def test_asking_again(benchmark: Any) -> None:
    fabric = load_fabric("meta-24k-roce")
    first = float(cost(fabric, "all-to-all", GROUPS, SIZE).time_s[0])
    assert benchmark(lambda: float(cost(fabric, "all-to-all", GROUPS, SIZE).time_s[0])) == first


def test_yardstick_sorting_a_million_numbers(benchmark: Any) -> None:
    numbers = np.random.default_rng(0).random(1_000_000)
    assert benchmark(lambda: float(np.sort(numbers)[0])) == numbers.min()
