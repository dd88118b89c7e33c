"""What per-flow hashing costs: collisions over seeds against even splitting."""

from dataclasses import dataclass

import numpy as np

from fabrics.cost import cost
from fabrics.explain.sections import Rows, Section
from fabrics.graph import Fabric
from fabrics.network import FloatArray
from fabrics.units import bytes_text, seconds

SEEDS = 100
RANKS_MOST = 64
FLOWS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Hashing:
    """Transfer times of a permutation (every rank sends to the one half the ranks away): even splitting, and per number of flows over seeds."""

    ranks: int
    bytes: float
    ideal_s: float
    hashed_s: dict[int, FloatArray]


def sample(fabric: Fabric, bytes_: float) -> Hashing | None:
    """The permutation under ECMP; None where no pair of it has more than one path."""
    ranks = fabric.size - fabric.size % 2
    if ranks < 4:
        return None
    pairs = [(i, (i + ranks // 2) % ranks) for i in range(0, ranks, max(1, ranks // RANKS_MOST))]
    if max(fabric.routes.count(src, dst) for src, dst in pairs[:2]) < 2:
        return None
    base = fabric.spec.routing

    def transfer_s(**changes: object) -> float:
        return float(cost(fabric, "point-to-point", pairs, bytes_, routing=base.model_copy(update=changes)).transfer_s[0])

    hashed = {flows: np.array([transfer_s(mode="ecmp", seed=seed, flows_per_pair=flows) for seed in range(SEEDS)]) for flows in FLOWS}
    return Hashing(len(pairs), bytes_, transfer_s(mode="ideal"), hashed)


def section(found: Hashing | None) -> Section:
    """Collisions in words and numbers."""
    title = "Hash collisions (ECMP)"
    if found is None:
        return Section(title, ("Nothing sampled: between the pairs looked at there is one path only, or the fabric is too large to look at link by link.",))
    rows = []
    for flows, times in found.hashed_s.items():
        low, high = np.percentile(times, [10, 90])
        mean = float(times.mean())
        rows.append((f"{flows}", seconds(mean), f"{seconds(low)} to {seconds(high)}", seconds(float(times.max())), f"{mean / found.ideal_s:.2f}"))
    paragraphs = (
        f"Switches hash every flow to one of its equal paths; two flows on one link halve each other. {found.ranks} ranks each send "
        f"{bytes_text(found.bytes)} to the rank half the ranks away. Split evenly that takes {seconds(found.ideal_s)}; hashed, over {SEEDS} seeds:",
    )
    table = Rows(("flows per pair", "mean", "p10 to p90", "worst", "mean / even"), tuple(rows))
    return Section(title, paragraphs, (table,), picture="hashing", data={"ideal_s": found.ideal_s, "mean_s": float(found.hashed_s[1].mean())})
