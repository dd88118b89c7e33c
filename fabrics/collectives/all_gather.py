"""All-gather: every rank gets the parts of all ranks; bytes = the full result."""

from fabrics.collectives.rings import ring_phase
from fabrics.collectives.schedule import Group, Schedule, rings_of


def ring(group: Group) -> Schedule:
    """Ring: p-1 steps of 1/p of the result."""
    p = group.size
    return [ring_phase(group, (p - 1) / p, steps=p - 1)]


def hierarchical(group: Group) -> Schedule | None:
    """First between the ranks of a rail, then inside nodes."""
    rows = group.two_levels
    if rows is None:
        return None
    n, k = rows.shape
    return [rings_of(rows.T, (n - 1) / (n * k), steps=n - 1), rings_of(rows, (k - 1) / k, steps=k - 1)]
