"""What a collective sends: phases of flows, in shares of the message."""

from dataclasses import dataclass

import numpy as np

from fabrics.network import FloatArray, IntArray


@dataclass(frozen=True)
class Group:
    """The ranks that take part, in the order given, and the scale-up domain of each."""

    ranks: IntArray
    domains: IntArray

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.ranks)

    def rows(self) -> IntArray | None:
        """Ranks as an array of nodes x members when the group fills several nodes with the same number of ranks each, else None."""
        nodes: dict[int, list[int]] = {}
        for rank, domain in zip(self.ranks.tolist(), self.domains.tolist(), strict=True):
            nodes.setdefault(domain, []).append(rank)
        widths = {len(members) for members in nodes.values()}
        return np.array(list(nodes.values()), dtype=np.int64) if len(nodes) > 1 and len(widths) == 1 else None

    @property
    def two_levels(self) -> IntArray | None:
        """``rows`` when each node has more than one rank: what hierarchical algorithms need."""
        rows = self.rows()
        return rows if rows is not None and rows.shape[1] > 1 else None


@dataclass(frozen=True)
class Phase:
    """Flows that run at once; ``share[i]`` of the message's bytes goes from rank ``src[i]`` to rank ``dst[i]`` during the phase.

    ``steps``: messages that wait for each other. A step costs overhead and wire latency: the mean over the flows when chunks travel
    ``around`` them one after the other, as in a ring, else the slowest flow's. ``messages``: how many a rank sends without waiting;
    each after the first costs a gap.
    """

    src: IntArray
    dst: IntArray
    share: FloatArray
    steps: float = 1.0
    around: bool = False
    messages: int = 1


Schedule = list[Phase]


def rings_of(rows: IntArray, share: float, *, steps: float) -> Phase:
    """A ring in every row of ``rows`` (rings x members), all at once: each rank sends ``share`` of the message to its successor."""
    return Phase(rows.ravel(), np.roll(rows, -1, axis=1).ravel(), np.full(rows.size, share), steps, around=True)


def latency_only(pairs: list[tuple[int, int]], *, steps: float) -> Phase:
    """Dependent steps over some of the flows of a pipelined phase: they cost latency, their bytes are counted there."""
    return phase(pairs, 0.0, steps=steps, around=True)


def phase(pairs: list[tuple[int, int]], share: float, *, steps: float = 1.0, around: bool = False) -> Phase:
    """A phase from (source, destination) pairs that all carry the same share."""
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Phase(array[:, 0], array[:, 1], np.full(len(array), share), steps, around)
