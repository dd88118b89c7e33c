"""Broadcast: every rank gets the first rank's buffer; bytes = that buffer."""

from itertools import pairwise

from fabrics.collectives.rings import ring_orders
from fabrics.collectives.schedule import Group, Schedule, phase
from fabrics.collectives.trees import spread


def chain(group: Group) -> Schedule:
    """Pipelined chain: chunks travel from rank to rank, p-1 steps deep, every link carries the buffer once."""
    order = ring_orders(group)[0]
    start = order.index(int(group.ranks[0]))
    order = order[start:] + order[:start]
    return [phase(list(pairwise(order)), 1.0, steps=group.size - 1, around=True)]


def tree(group: Group) -> Schedule:
    """Double binary tree, downwards: half of the buffer in each tree, 1 + log2(p-1) steps."""
    return spread(group)
