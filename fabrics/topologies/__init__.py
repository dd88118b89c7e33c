"""All topologies: one file each, listed here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fabrics.graph import Fabric
from fabrics.spec import FabricSpec
from fabrics.topologies import clos, dragonfly, explicit, node, torus


@dataclass(frozen=True)
class Topology:
    """A kind of fabric file and the function that builds its graph."""

    spec: type[FabricSpec]
    build: Callable[[Any], Fabric]


TOPOLOGIES = {
    "clos": Topology(clos.Clos, clos.build),
    "node": Topology(node.Node, node.build),
    "torus": Topology(torus.Torus, torus.build),
    "dragonfly": Topology(dragonfly.Dragonfly, dragonfly.build),
    "explicit": Topology(explicit.Explicit, explicit.build),
}
