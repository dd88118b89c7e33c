"""All sections for a fabric, in the order in which they are read."""

from typing import Any

import numpy as np

from fabrics.explain import paths, tiers, walk
from fabrics.explain.sections import Section
from fabrics.explain.walk import Walk
from fabrics.graph import Fabric
from fabrics.network import FloatArray


def sections(fabric: Fabric, walked: Walk) -> list[Section]:
    """Everything that is known about a fabric; ``walked`` is the all-to-all it is shown on."""
    return [tiers.section(fabric), paths.section(fabric), walk.section(fabric, walked)]


def busy(fabric: Fabric, walked: Walk) -> FloatArray:
    """Share of the all-to-all's transfer time that each link is busy."""
    costs = walked.cost(fabric)
    line = costs.lines[0]
    if line is None:
        return np.zeros(len(fabric.links))
    return np.asarray(costs.link_bytes(0) / line.payload_bytes_per_s / costs.transfer_s[0])


def document(fabric: Fabric, parts: list[Section]) -> dict[str, Any]:
    """The explanation as plain data."""
    return {"schema_version": 1, "fabric": fabric.spec.name, "endpoints": fabric.size, "sections": [part.document() for part in parts]}
