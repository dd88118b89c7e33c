"""All-to-all: every rank sends a different part to every rank; bytes = what one rank sends in total, its own part included."""

import numpy as np

from fabrics.collectives.schedule import Group, Phase
from fabrics.network import FloatArray


def pairwise(group: Group, matrix: FloatArray | None = None) -> list[Phase]:
    """Direct: every rank posts p−1 messages at once; the network shares them out.

    ``matrix[i, j]``: share of the message that member i sends to member j (1/p when None). The diagonal costs nothing.
    """
    p = group.size
    shares = np.full((p, p), 1 / p) if matrix is None else matrix
    i, j = np.nonzero((shares > 0) & ~np.eye(p, dtype=bool))
    if not len(i):
        return []
    return [Phase(group.ranks[i], group.ranks[j], shares[i, j], messages=int(np.bincount(i).max()))]
