"""The rings that a group's ranks form.

Like NCCL, a group that fills several nodes evenly gets as many rings as it has ranks per node, so that every rank's port is used: ring c enters a node
at member c and leaves it at the member before; every other node is walked backwards, so that a ring stays on one rail.
"""

import numpy as np

from fabrics.collectives.schedule import Group, Phase


def ring_orders(group: Group) -> list[list[int]]:
    """Ranks in the order of each ring; nodes come in the order in which the group names them."""
    nodes: dict[int, list[int]] = {}
    for rank, domain in zip(group.ranks.tolist(), group.domains.tolist(), strict=True):
        nodes.setdefault(domain, []).append(rank)
    sizes = {len(members) for members in nodes.values()}
    channels = sizes.pop() if len(nodes) > 1 and len(sizes) == 1 else 1
    orders = []
    for channel in range(channels):
        order: list[int] = []
        for i, members in enumerate(nodes.values()):
            turned = members[channel:] + members[:channel]
            order += turned if i % 2 == 0 else [*reversed(turned)]
        orders.append(order)
    return orders


def ring_phase(group: Group, share: float, steps: float) -> Phase:
    """Every rank sends ``share`` of the message to its successor, split over the rings, in ``steps`` dependent steps."""
    orders = ring_orders(group)
    src = np.array(orders, dtype=np.int64)
    dst = np.roll(src, -1, axis=1)
    return Phase(src.ravel(), dst.ravel(), np.full(src.size, share / len(orders)), steps, around=True)
