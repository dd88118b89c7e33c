"""All-reduce: every rank gets the sum of all ranks' buffers; bytes = one rank's buffer."""

from fabrics.collectives.rings import ring_phase
from fabrics.collectives.schedule import Group, Phase


def ring(group: Group) -> list[Phase]:
    """Ring: 2(p−1) steps of 1/p of the buffer (Patarasuk and Yuan 2009); bandwidth-optimal."""
    p = group.size
    return [ring_phase(group, 2 * (p - 1) / p, steps=2 * (p - 1))]
