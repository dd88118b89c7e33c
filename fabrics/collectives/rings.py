"""The rings that a group's ranks form.

Like NCCL, a group that fills several nodes evenly gets as many rings as it has ranks per node, so that every rank's port is used: ring c enters a node
at member c and leaves it at the member before; every other node is walked backwards, so that a ring stays on one rail.
"""

import numpy as np

from fabrics.collectives.schedule import Group, Phase


def ring_orders(group: Group) -> list[list[int]]:
    """Ranks in the order of each ring; nodes come in the order in which the group names them."""
    rows = group.rows()
    if rows is None:
        return [_by_node(group)]
    orders = []
    for channel in range(rows.shape[1]):
        turned = np.roll(rows, -channel, axis=1)
        turned[1::2] = turned[1::2, ::-1]
        orders.append(turned.ravel().tolist())
    return orders


def _by_node(group: Group) -> list[int]:
    """Ranks of one node next to each other; nodes and ranks otherwise in the group's order."""
    first: dict[int, int] = {}
    for i, domain in enumerate(group.domains.tolist()):
        first.setdefault(domain, i)
    return [rank for _, rank in sorted(zip((first[domain] for domain in group.domains.tolist()), group.ranks.tolist(), strict=True), key=lambda pair: pair[0])]


def ring_phase(group: Group, share: float, steps: float) -> Phase:
    """Every rank sends ``share`` of the message to its successor, split over the rings, in ``steps`` dependent steps."""
    orders = ring_orders(group)
    src = np.array(orders, dtype=np.int64)
    dst = np.roll(src, -1, axis=1)
    return Phase(src.ravel(), dst.ravel(), np.full(src.size, share / len(orders)), steps, around=True)
