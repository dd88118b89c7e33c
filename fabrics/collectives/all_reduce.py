"""All-reduce: every rank gets the sum of all ranks' buffers; bytes = one rank's buffer."""

import numpy as np

from fabrics.collectives.rings import ring_phase
from fabrics.collectives.schedule import Group, Phase, Schedule, latency_only, phase, rings_of
from fabrics.collectives.trees import depth, double_tree, reduce_and_return


def ring(group: Group) -> Schedule:
    """Ring: 2(p-1) steps of 1/p of the buffer (Patarasuk and Yuan 2009); bandwidth-optimal."""
    p = group.size
    return [ring_phase(group, 2 * (p - 1) / p, steps=2 * (p - 1))]


def tree(group: Group) -> Schedule:
    """Double binary tree: half of the buffer up and down each tree, pipelined; 2 log2(nodes) steps and a chain inside nodes."""
    return reduce_and_return(group)


def hierarchical(group: Group) -> Schedule | None:
    """Reduce-scatter inside nodes, ring all-reduce between the ranks of a rail, all-gather inside nodes."""
    rows = group.two_levels
    if rows is None:
        return None
    n, k = rows.shape
    inside = rings_of(rows, (k - 1) / k, steps=k - 1)
    between = rings_of(rows.T, 2 * (n - 1) / n / k, steps=2 * (n - 1))
    return [inside, between, inside]


def nvls(group: Group) -> Schedule | None:
    """Sums in the NVLink switch: a rank's buffer goes up once and its part of the sum comes down, then the part goes up and the whole sum comes down.

    (1 + 1/p) of the buffer over every link in each direction, in two steps. Written as flows to the next rank, which load the same links.
    """
    if len(set(group.domains.tolist())) > 1:
        return None
    return [Phase(group.ranks, np.roll(group.ranks, -1), np.full(group.size, 1 + 1 / group.size), steps=1.0)]


def nvls_tree(group: Group) -> Schedule | None:
    """Sums in the NVLink switch inside nodes, double trees between the ranks of a rail, pipelined."""
    rows = group.two_levels
    if rows is None:
        return None
    n, k = rows.shape
    inside = rings_of(rows, 1 + 1 / k, steps=1)
    edges = [(int(rail[child]), int(rail[parent])) for rail in rows.T for tree in double_tree(n) for child, parent in tree]
    between = phase(edges + [(parent, child) for child, parent in edges], 1 / (2 * k), steps=0)
    both = Phase(np.r_[inside.src, between.src], np.r_[inside.dst, between.dst], np.r_[inside.share, between.share], steps=0)
    return [both, latency_only(list(zip(inside.src.tolist(), inside.dst.tolist(), strict=True)), steps=1), latency_only(edges, steps=2 * depth(n))]
