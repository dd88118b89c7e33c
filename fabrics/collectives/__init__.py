"""All collectives and their algorithms: one file each, listed here."""

from collections.abc import Callable

from fabrics.collectives import all_gather, all_reduce, all_to_all, broadcast, point_to_point, reduce_scatter
from fabrics.collectives.schedule import Group, Phase

COLLECTIVES: dict[str, dict[str, Callable[[Group], list[Phase]]]] = {
    "all-reduce": {"ring": all_reduce.ring},
    "all-gather": {"ring": all_gather.ring},
    "reduce-scatter": {"ring": reduce_scatter.ring},
    "all-to-all": {"pairwise": all_to_all.pairwise},
    "broadcast": {"chain": broadcast.chain},
    "point-to-point": {"send": point_to_point.send},
}
