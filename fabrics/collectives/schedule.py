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


def phase(pairs: list[tuple[int, int]], share: float, *, steps: float = 1.0, around: bool = False) -> Phase:
    """A phase from (source, destination) pairs that all carry the same share."""
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Phase(array[:, 0], array[:, 1], np.full(len(array), share), steps, around)
