"""All sections for a fabric, in the order in which they are read."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fabrics.explain import failing, glossary, groups, hashing, paths, tiers, walk, what_if
from fabrics.explain.sections import Section
from fabrics.explain.walk import LINK_BY_LINK_MOST, Walk
from fabrics.graph import Fabric
from fabrics.network import FloatArray


@dataclass(frozen=True)
class Explanation:
    """The sections, and what the drawings need: each link's busy share in the walked all-to-all, and the sample of hashed times."""

    fabric: Fabric
    walked: Walk
    sections: list[Section]
    busy: FloatArray | None
    hashed: hashing.Hashing | None

    def document(self) -> dict[str, Any]:
        """The explanation as plain data."""
        return {
            "schema_version": 1,
            "fabric": self.fabric.spec.name,
            "endpoints": self.fabric.size,
            "sections": [section.document() for section in self.sections],
        }


def explain(fabric: Fabric, walked: Walk, *, worst_failure: bool = False, pair: tuple[int, int] | None = None) -> Explanation:
    """Everything that is known about a fabric; ``walked`` is the all-to-all it is shown on; ``worst_failure`` tries single failures too;
    ``pair``: the ranks whose path is shown, instead of one of each kind.
    """
    hashed = hashing.sample(fabric, walked.bytes_per_pair) if fabric.size <= LINK_BY_LINK_MOST else None
    loads = busy(fabric, walked)
    parts = [
        tiers.section(fabric),
        paths.section(fabric, pair),
        walk.section(fabric, walked),
        groups.section(fabric),
        hashing.section(hashed),
        what_if.section(fabric, walked),
        *([failing.section(fabric, walked, loads)] if worst_failure else []),
        glossary.section(fabric),
    ]
    return Explanation(fabric, walked, parts, loads, hashed)


def busy(fabric: Fabric, walked: Walk) -> FloatArray | None:
    """Share of the all-to-all's transfer time that each link of the graph is busy; None for fabrics too large to look at link by link."""
    if fabric.size > LINK_BY_LINK_MOST:
        return None
    costs = walked.cost(fabric.explicit())
    line = costs.lines[0]
    if line is None:
        return np.zeros(len(fabric.links))
    return costs.busy_share(0)
