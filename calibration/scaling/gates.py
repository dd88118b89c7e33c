"""Gates: which runs may enter a fit, and a log of those that may not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.records.run_table import RunRow


@dataclass(frozen=True)
class Gates:
    """What a row must satisfy to enter a fit; a quantity that the row lacks is not held against it.

    Tokens per parameter: five rows of the Chinchilla table with fewer than 0.41 move its data exponent from 0.367 to 0.453; the upper end is assumed.
    Warm-up, decay, dropped tokens and balance: shares beyond which a loss no longer stands for its (N, D, E); assumed, after the pitfalls that
    Porian et al. 2024 and Ludziejewski et al. 2025 report.
    """

    tokens_per_parameter: tuple[float, float] = (0.41, 1000.0)
    warmup_share: float = 0.1
    final_learning_rate_share: float = 0.2
    dropped_tokens_share: float = 0.01
    expert_load_entropy_share: float = 0.5

    def objections(self, row: RunRow) -> list[str]:
        """Why ``row`` may not enter a fit; empty when it may."""
        low, high = self.tokens_per_parameter
        ratio = row.tokens / row.active_parameters
        found = [] if low <= ratio <= high else [f"{ratio:.3g} tokens per parameter, outside {low:g} to {high:g}"]
        if row.warmup_tokens is not None and row.warmup_tokens > self.warmup_share * row.tokens:
            found.append(f"warm-up is {row.warmup_tokens / row.tokens:.0%} of the tokens, above {self.warmup_share:.0%}")
        if row.final_learning_rate_share is not None and row.final_learning_rate_share > self.final_learning_rate_share:
            found.append(f"the learning rate ends at {row.final_learning_rate_share:.0%} of its peak, above {self.final_learning_rate_share:.0%}")
        if row.dropped_tokens_share is not None and row.dropped_tokens_share > self.dropped_tokens_share:
            found.append(f"{row.dropped_tokens_share:.1%} of the tokens dropped, above {self.dropped_tokens_share:.0%}")
        if row.expert_load_entropy_nats is not None and row.experts > 1:
            share = row.expert_load_entropy_nats / math.log(row.experts)
            if share < self.expert_load_entropy_share:
                found.append(f"expert-load entropy is {share:.0%} of ln E, below {self.expert_load_entropy_share:.0%}")
        return found


@dataclass(frozen=True)
class Exclusion:
    """A row that a gate kept out, and why."""

    run: str
    reason: str


def gated(rows: Sequence[RunRow], gates: Gates) -> tuple[list[RunRow], list[Exclusion]]:
    """Split rows into those that enter a fit and the log of the others."""
    kept, excluded = [], []
    for row in rows:
        objections = gates.objections(row)
        if objections:
            excluded.append(Exclusion(row.run, "; ".join(objections)))
        else:
            kept.append(row)
    return kept, excluded
