"""Double binary trees (Sanders, Speck and Träff 2009): two trees over the same members, the leaves of one being inner nodes of the other."""

from math import ceil, log2

import numpy as np

from fabrics.collectives.schedule import Group, Schedule, latency_only, phase

Edge = tuple[int, int]


def double_tree(count: int) -> list[list[Edge]]:
    """(child, parent) pairs of both trees over members 0 ... count-1; the second is the first, mirrored (even count) or shifted by one (odd count)."""
    first: list[Edge] = []
    _join(0, count, None, first)
    if count % 2 == 0:
        second = [(count - 1 - child, count - 1 - parent) for child, parent in first]
    else:
        second = [((child + 1) % count, (parent + 1) % count) for child, parent in first]
    return [first, second]


def _join(low: int, high: int, parent: int | None, edges: list[Edge]) -> None:
    """In-order binary tree over [low, high): the root is the largest power of two that fits, so that even members are leaves."""
    if low >= high:
        return
    root = low + 2 ** (ceil(log2(high - low + 1)) - 1) - 1
    if parent is not None:
        edges.append((root, parent))
    _join(low, root, root, edges)
    _join(root + 1, high, root, edges)


def depth(count: int) -> int:
    """Steps from the farthest leaf to the root, as NCCL counts them: log2 of the count."""
    return ceil(log2(count)) if count > 1 else 0


def reduce_and_return(group: Group) -> Schedule:
    """All-reduce: chains to one member of each node, double trees over the nodes; sums go up, results come down, half of the message in each tree.

    Like NCCL, a group that fills several nodes evenly runs one pair of trees per member of a node, each with its part of the message.
    """
    rows = group.rows()
    nodes, channels = (rows, rows.shape[1]) if rows is not None else (group.ranks[:, None], 1)
    count, width = nodes.shape
    chains: list[Edge] = []
    trees: list[Edge] = []
    for channel in range(channels):
        turned = np.roll(nodes, -channel, axis=1)
        for edges in double_tree(count):
            trees += [(int(turned[child, 0]), int(turned[parent, 0])) for child, parent in edges]
            chains += [(int(row[i + 1]), int(row[i])) for row in turned for i in range(width - 1)]
    up = chains + trees
    schedule = [phase(up + [(parent, child) for child, parent in up], 1 / (2 * channels), steps=0)]
    if chains:
        schedule.append(latency_only(chains, steps=2 * (width - 1)))
    if trees:
        schedule.append(latency_only(trees, steps=2 * depth(count)))
    return schedule


def spread(group: Group) -> Schedule:
    """Broadcast: the first rank feeds the roots of two trees over the others, half of the message in each."""
    source, others = int(group.ranks[0]), group.ranks[1:].tolist()
    edges: list[Edge] = []
    for tree in double_tree(len(others)):
        children = {child for child, _ in tree}
        (root,) = set(range(len(others))) - children
        edges += [(source, others[root]), *((others[parent], others[child]) for child, parent in tree)]
    return [phase(edges, 0.5, steps=1 + depth(len(others)), around=True)]
