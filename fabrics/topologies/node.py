"""One node: accelerators on one switch (NVSwitch, PCIe switch, the host's memory)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fabrics.graph import Fabric, GraphBuilder
from fabrics.spec import FabricSpec, bytes_per_s, latency_s


class Node(FabricSpec):
    """``accelerators`` endpoints, each with a link of ``link_bytes_per_s`` per direction to the switch; ``hop_latency_s`` per link."""

    kind: Literal["node"] = "node"
    accelerators: Annotated[int, Field(ge=1)] = 8
    link_kind: Literal["nvlink", "pcie", "shm", "socket"] = "nvlink"
    link_bytes_per_s: Annotated[float, AfterValidator(bytes_per_s)]
    hop_latency_s: Annotated[float, AfterValidator(latency_s)] = 0.0


def build(spec: Node) -> Fabric:
    """The star of one switch and its accelerators."""
    graph = GraphBuilder()
    switch = graph.switch({"nvlink": "nvswitch0", "pcie": "pcie-switch0"}.get(spec.link_kind, "host0"), spec.link_kind, tier=1)
    for _ in range(spec.accelerators):
        graph.join(graph.accelerator(domain=0), switch, spec.link_bytes_per_s, spec.hop_latency_s, spec.link_kind)
    return graph.fabric(spec)
