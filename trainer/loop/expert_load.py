"""How evenly one optimizer step loaded the experts, in a few numbers for the log.

Shapes: L MoE layers, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepLoad:
    """Tokens of each expert of each MoE layer in one step of all ranks, and how many choices found no row (``dropped_L``; empty without a capacity)."""

    counts_LE: tuple[tuple[int, ...], ...]
    dropped_L: tuple[int, ...] = ()

    @property
    def max_over_mean(self) -> float:
        """Load of the busiest expert over the mean of its layer, in the layer where it is highest: what expert parallelism waits for."""
        return max(max(counts_E) * len(counts_E) / sum(counts_E) for counts_E in self.counts_LE)

    @property
    def dead_experts(self) -> int:
        """Experts of all layers that no token went to."""
        return sum(counts_E.count(0) for counts_E in self.counts_LE)

    @property
    def dropped_share(self) -> float | None:
        """Share of all choices that found no row; None where nothing can be dropped."""
        return sum(self.dropped_L) / sum(map(sum, self.counts_LE)) if self.dropped_L else None


def step_load(numbers: Sequence[float], experts_L: Sequence[int]) -> StepLoad | None:
    """From all counts of the layers in a row, then what was dropped of each where there is a capacity; None for a dense model."""
    whole = [round(number) for number in numbers]
    counts = []
    for experts in experts_L:
        counts.append(tuple(whole[:experts]))
        whole = whole[experts:]
    return StepLoad(tuple(counts), tuple(whole)) if counts else None
