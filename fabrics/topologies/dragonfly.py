"""Dragonfly (Kim et al., ISCA 2008): groups of routers, all-to-all inside a group and all-to-all between groups."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fabrics.graph import Fabric, GraphBuilder
from fabrics.spec import FabricSpec, bytes_per_s, latency_s

Rate = Annotated[float, AfterValidator(bytes_per_s)]
Latency = Annotated[float, AfterValidator(latency_s)]


class Dragonfly(FabricSpec):
    """``groups`` of ``routers_per_group`` routers with ``hosts_per_router`` accelerators each.

    Inside a group every router has a link to every other; every pair of groups is joined by ``global_links`` links, dealt to the routers in turn.
    Routes are minimal: at most one local, one global, one local link between routers.
    """

    kind: Literal["dragonfly"] = "dragonfly"
    groups: Annotated[int, Field(ge=1)]
    routers_per_group: Annotated[int, Field(ge=1)]
    hosts_per_router: Annotated[int, Field(ge=1)]
    global_links: Annotated[int, Field(ge=1)] = 1
    link_bytes_per_s: Rate
    local_bytes_per_s: Rate | None = None
    global_bytes_per_s: Rate | None = None
    hop_latency_s: Latency
    global_latency_s: Latency | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.global_links > self.routers_per_group**2:
            raise ValueError(f"global_links: at most one per pair of routers, {self.routers_per_group**2}")
        return self


def build(spec: Dragonfly) -> Fabric:
    """Accelerators, routers r0 ... in order of groups, links."""
    graph = GraphBuilder()
    size = spec.routers_per_group
    count = spec.groups * size
    accelerators = [[graph.accelerator(domain=i * spec.hosts_per_router + k) for k in range(spec.hosts_per_router)] for i in range(count)]
    routers = [graph.switch(f"router{i}", "router", tier=1) for i in range(count)]
    local, far = spec.local_bytes_per_s or spec.link_bytes_per_s, spec.global_bytes_per_s or spec.link_bytes_per_s
    far_s = spec.hop_latency_s if spec.global_latency_s is None else spec.global_latency_s
    for router, members in zip(routers, accelerators, strict=True):
        for accelerator in members:
            graph.join(accelerator, router, spec.link_bytes_per_s, spec.hop_latency_s, "network")
    for group in range(spec.groups):
        for i in range(size):
            for j in range(i + 1, size):
                graph.join(routers[group * size + i], routers[group * size + j], local, spec.hop_latency_s, "network")
    dealt = [0] * spec.groups
    for one in range(spec.groups):
        for other in range(one + 1, spec.groups):
            for _ in range(spec.global_links):
                graph.join(routers[one * size + dealt[one] % size], routers[other * size + dealt[other] % size], far, far_s, "network")
                dealt[one] += 1
                dealt[other] += 1
    return graph.fabric(spec)
