"""Reduce-scatter: every rank gets its part of the sum; bytes = one rank's full input."""

from fabrics.collectives.rings import ring_phase
from fabrics.collectives.schedule import Group, Phase


def ring(group: Group) -> list[Phase]:
    """Ring: p−1 steps of 1/p of the input."""
    p = group.size
    return [ring_phase(group, (p - 1) / p, steps=p - 1)]
