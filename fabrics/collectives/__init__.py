"""All collectives and their algorithms: one file each, listed here.

An algorithm turns a group into a schedule, or into None where it does not apply (two levels need several nodes with several ranks each).
"""

from collections.abc import Callable

from fabrics.collectives import all_gather, all_reduce, all_to_all, broadcast, point_to_point, reduce_scatter
from fabrics.collectives.schedule import Schedule

COLLECTIVES: dict[str, dict[str, Callable[..., Schedule | None]]] = {
    "all-reduce": {
        "ring": all_reduce.ring,
        "tree": all_reduce.tree,
        "hierarchical": all_reduce.hierarchical,
        "nvls": all_reduce.nvls,
        "nvls-tree": all_reduce.nvls_tree,
    },
    "all-gather": {"ring": all_gather.ring, "hierarchical": all_gather.hierarchical},
    "reduce-scatter": {"ring": reduce_scatter.ring, "hierarchical": reduce_scatter.hierarchical},
    "all-to-all": {"pairwise": all_to_all.pairwise, "hierarchical": all_to_all.hierarchical},
    "broadcast": {"chain": broadcast.chain, "tree": broadcast.tree},
    "point-to-point": {"send": point_to_point.send},
}
IN_SWITCH = {"nvls", "nvls-tree"}
"""Algorithms that only run under protocols that name them: they need switches that add."""
