"""Which ranks form the groups of a collective."""

from configuration.errors import ConfigurationError
from fabrics.graph import Fabric


def groups(fabric: Fabric, ranks: int | None, group_size: int | None, *, strided: bool = False) -> list[tuple[int, ...]]:
    """The first ``ranks`` endpoints (all when None) cut into groups of ``group_size`` (one group when None).

    Neighbours form a group; with ``strided`` the ranks of a group are as far apart as there are groups. Raises ConfigurationError when they do not fit.
    """
    total = fabric.size if ranks is None else ranks
    if not 1 <= total <= fabric.size:
        raise ConfigurationError(f"--ranks {total}: fabric {fabric.spec.name} has {fabric.size} endpoints; legal are 1 to {fabric.size}")
    size = total if group_size is None else group_size
    if size < 1 or total % size:
        raise ConfigurationError(f"--group-size {size}: does not divide {total} ranks")
    count = total // size
    if strided:
        return [tuple(range(i, total, count)) for i in range(count)]
    return [tuple(range(i * size, (i + 1) * size)) for i in range(count)]


def faults(fabric: Fabric, fail: list[str], slow: list[str]) -> Fabric:
    """The fabric after ``--fail spine1`` and ``--slow leaf0:spine0=0.5``. Raises ConfigurationError for what is no switch, link or share."""
    shares = {}
    for text in slow:
        link, equals, share = text.rpartition("=")
        try:
            shares[link] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigurationError(f"--slow {text}: expected LINK=SHARE, for one leaf0:spine0=0.5")
    return fabric.without(tuple(fail), shares) if fail or shares else fabric
