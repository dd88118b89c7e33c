"""All-to-all: every rank sends a different part to every rank; bytes = what one rank sends in total, its own part included."""

import numpy as np

from fabrics.collectives.schedule import Group, Phase, Schedule
from fabrics.network import FloatArray, IntArray


def pairwise(group: Group, matrix: FloatArray | None = None) -> Schedule:
    """Direct: every rank posts its p-1 messages at once; the network shares them out.

    ``matrix[i, j]``: share of the message that member i sends to member j (1/p when None). The diagonal costs nothing.
    """
    return _at_once(group.ranks, _shares(group, matrix))


def hierarchical(group: Group, matrix: FloatArray | None = None) -> Schedule | None:
    """Two levels with rail-aligned forwarding, as NCCL's PXN and DeepEP do: first inside the node to the member on the destination's rail, then along the rail.

    Both levels run at once, chunk after chunk, so the hottest link of both together sets the transfer; their latencies add up. Between nodes
    there are p/k - 1 messages per rank instead of p - k.
    """
    rows = group.two_levels
    if rows is None:
        return None
    n, k = rows.shape
    member = {rank: i for i, rank in enumerate(group.ranks.tolist())}
    order = np.array([member[rank] for rank in rows.ravel().tolist()])
    shares = _shares(group, matrix)[np.ix_(order, order)].reshape(n, k, n, k)
    inside, between = np.zeros((n, k, n, k)), np.zeros((n, k, n, k))
    node, rail = np.arange(n), np.arange(k)
    # Member a of node x hands everything for rail b (any node) to member b; b carries the whole node's part for node y along its rail.
    inside[node, :, node, :] = shares.sum(axis=2)
    between[:, rail, :, rail] = shares.sum(axis=1).transpose(2, 0, 1)
    between[node, :, node, :] = 0
    ranks = rows.ravel()
    levels = [_at_once(ranks, level.reshape(n * k, n * k)) for level in (inside, between)]
    if not all(levels):
        return levels[0] or levels[1]
    (one,), (other,) = levels
    both = Phase(np.r_[one.src, other.src], np.r_[one.dst, other.dst], np.r_[one.share, other.share], steps=0)
    return [both, *(Phase(level.src, level.dst, np.zeros(len(level.src)), messages=level.messages) for level in (one, other))]


def _shares(group: Group, matrix: FloatArray | None) -> FloatArray:
    return np.full((group.size, group.size), 1 / group.size) if matrix is None else matrix


def _at_once(ranks: IntArray, shares: FloatArray) -> Schedule:
    i, j = np.nonzero((shares > 0) & ~np.eye(len(ranks), dtype=bool))
    return [Phase(ranks[i], ranks[j], shares[i, j], messages=int(np.bincount(i).max()))] if len(i) else []
