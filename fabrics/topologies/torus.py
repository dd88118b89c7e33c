"""Torus: accelerators joined to their neighbours along each dimension, with wrap-around; no switches."""

from itertools import product
from math import prod
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fabrics.graph import Fabric, GraphBuilder
from fabrics.spec import FabricSpec, bytes_per_s, latency_s


class Torus(FabricSpec):
    """``dimensions`` (4, 4, 4) is a cube of 64; every link has ``link_bytes_per_s`` per direction. A dimension of two has one link, not two."""

    kind: Literal["torus"] = "torus"
    dimensions: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1, max_length=3)]
    link_bytes_per_s: Annotated[float, AfterValidator(bytes_per_s)]
    hop_latency_s: Annotated[float, AfterValidator(latency_s)]


def build(spec: Torus) -> Fabric:
    """Ranks in row-major order: the last dimension varies fastest. Every accelerator is a domain of its own."""
    graph = GraphBuilder()
    at = {place: graph.accelerator(domain=i, position=place) for i, place in enumerate(product(*map(range, spec.dimensions)))}
    assert len(at) == prod(spec.dimensions)
    for place, name in at.items():
        for axis, length in enumerate(spec.dimensions):
            if length > 2 or place[axis] == 0:
                neighbour = (*place[:axis], (place[axis] + 1) % length, *place[axis + 1 :])
                graph.join(name, at[neighbour], spec.link_bytes_per_s, spec.hop_latency_s, "ici")
    return graph.fabric(spec)
