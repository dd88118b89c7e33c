"""Clos networks of switches: leaf-spine, fat tree, rails, planes, oversubscribed pods."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from fabrics.graph import Fabric, GraphBuilder
from fabrics.spec import FabricSpec, bytes_per_s, latency_s

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, AfterValidator(bytes_per_s)]
Latency = Annotated[float, AfterValidator(latency_s)]
Ratio = Annotated[float, Field(gt=0, le=1e4)]
SYMMETRIC_FROM = 64
"""Endpoints from which on the graph is not built unless it is needed."""


class Clos(FabricSpec):
    """Nodes under leaves, leaves under spines, spines of several pods under cores. Rates are per direction, latencies per link.

    ``leaves``, ``spines`` and ``cores`` count the switches of one plane. ``rails``: the accelerators of a node are dealt in turn to that
    many leaves (1: a node hangs on one leaf); with ``join_rails: false`` each rail keeps its own spines. ``planes``: copies of the whole
    network, each with an equal part of every accelerator's ``link_bytes_per_s``. ``pods``: leaves and spines fall into that many equal parts,
    joined by ``cores``; with ``core_groups`` g, spine i of a pod is joined to the cores of group i mod g only (1: to all).
    ``oversubscription`` is a leaf's host-side over its spine-side bandwidth; when given it sets the uplinks' rate, otherwise it follows from
    it (default: an uplink is as fast as a host link). ``core_oversubscription`` is the same of a spine. Inside a node accelerators are joined
    by a scale-up switch.
    """

    kind: Literal["clos"] = "clos"
    leaves: Count
    hosts_per_leaf: Count
    spines: Annotated[int, Field(ge=0)] = 0
    accelerators_per_node: Count = 1
    rails: Count = 1
    join_rails: bool = True
    planes: Count = 1
    pods: Count = 1
    cores: Annotated[int, Field(ge=0)] = 0
    core_groups: Count = 1
    link_bytes_per_s: Rate
    uplink_bytes_per_s: Rate | None = None
    core_link_bytes_per_s: Rate | None = None
    oversubscription: Ratio | None = None
    core_oversubscription: Ratio | None = None
    hop_latency_s: Latency
    uplink_latency_s: Latency | None = None
    core_latency_s: Latency | None = None
    scale_up_bytes_per_s: Rate | None = None
    scale_up_latency_s: Latency = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for field, whole, part, parts in (
            ("rails", "accelerators_per_node", self.accelerators_per_node, self.rails),
            ("rails", "leaves", self.leaves, self.rails),
            ("pods", "leaves", self.leaves, self.pods),
            ("pods", "leaves / rails", self.leaves // self.rails, self.pods),
            ("pods", "spines", self.spines, self.pods),
            ("core_groups", "cores", self.cores, self.core_groups),
        ):
            if part % parts:
                raise ValueError(f"{field}: {parts} does not divide {whole} = {part}")
        if not self.join_rails and self.spines // self.pods % self.rails:
            raise ValueError(f"join_rails: {self.rails} rails of their own do not divide the {self.spines // self.pods} spines of a pod")
        if self.accelerators_per_node > 1 and self.scale_up_bytes_per_s is None:
            raise ValueError("scale_up_bytes_per_s: needed with more than one accelerator per node")
        for ratio, rate in (("oversubscription", "uplink_bytes_per_s"), ("core_oversubscription", "core_link_bytes_per_s")):
            if getattr(self, ratio) is not None and getattr(self, rate) is not None:
                raise ValueError(f"{ratio} and {rate} are both given: one follows from the other")
        if self.oversubscription is not None and not self.spines:
            raise ValueError("oversubscription: needs spines")
        if self.core_oversubscription is not None and not self.cores:
            raise ValueError("core_oversubscription: needs cores")
        if self.cores and self.pods == 1:
            raise ValueError("cores: they join pods, and there is one pod")
        if self.core_groups > 1 and self.spines // self.pods % self.core_groups:
            raise ValueError(f"core_groups: {self.core_groups} does not divide the {self.spines // self.pods} spines of a pod")
        return self

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.leaves // self.rails * self.hosts_per_leaf

    @property
    def port_bytes_per_s(self) -> float:
        """Rate of one accelerator's link into one plane."""
        return self.link_bytes_per_s / self.planes

    @property
    def leaf_down_bytes_per_s(self) -> float:
        """Host-side bandwidth of one leaf."""
        return self.hosts_per_leaf * self.accelerators_per_node // self.rails * self.port_bytes_per_s

    @property
    def spines_per_leaf(self) -> int:
        """Uplinks of one leaf."""
        return self.spines // self.pods // (1 if self.join_rails else self.rails)

    @property
    def leaves_per_spine(self) -> int:
        """Downlinks of one spine."""
        return self.leaves // self.pods // (1 if self.join_rails else self.rails)

    @property
    def cores_per_spine(self) -> int:
        """Uplinks of one spine."""
        return self.cores // self.core_groups

    @property
    def uplink_rate(self) -> float:
        """Rate of one leaf-spine link."""
        if self.oversubscription is not None:
            return self.leaf_down_bytes_per_s / (self.oversubscription * self.spines_per_leaf)
        return self.uplink_bytes_per_s or self.port_bytes_per_s

    @property
    def core_rate(self) -> float:
        """Rate of one spine-core link."""
        if self.core_oversubscription is not None:
            return self.leaves_per_spine * self.uplink_rate / (self.core_oversubscription * self.cores_per_spine)
        return self.core_link_bytes_per_s or self.uplink_rate

    @property
    def leaf_oversubscription(self) -> float | None:
        """Host-side over spine-side bandwidth of a leaf; None without spines."""
        return self.leaf_down_bytes_per_s / (self.spines_per_leaf * self.uplink_rate) if self.spines else None

    @property
    def spine_oversubscription(self) -> float | None:
        """Leaf-side over core-side bandwidth of a spine; None without cores."""
        return self.leaves_per_spine * self.uplink_rate / (self.cores_per_spine * self.core_rate) if self.cores else None

    @property
    def uplink_hop_s(self) -> float:
        """Latency of a leaf-spine link."""
        return self.hop_latency_s if self.uplink_latency_s is None else self.uplink_latency_s

    @property
    def core_hop_s(self) -> float:
        """Latency of a spine-core link."""
        return self.uplink_hop_s if self.core_latency_s is None else self.core_latency_s


def build(spec: Clos) -> Fabric:
    """The fabric; a large one is priced by symmetry, and its graph is built when something asks for it."""
    from fabrics.symmetry import ClosSymmetry, is_symmetric

    size = spec.nodes * spec.accelerators_per_node
    if size < SYMMETRIC_FROM or not is_symmetric(spec):
        return explicit(spec)
    endpoints = tuple(f"gpu{i}" for i in range(size))
    return Fabric(spec, endpoints, np.arange(size) // spec.accelerators_per_node, lambda: explicit(spec).graph, ClosSymmetry(spec))


def explicit(spec: Clos) -> Fabric:
    """The graph, node by node and plane by plane."""
    graph = GraphBuilder()
    accelerators = [[graph.accelerator(domain=node) for _ in range(spec.accelerators_per_node)] for node in range(spec.nodes)]
    if spec.scale_up_bytes_per_s is not None and spec.accelerators_per_node > 1:
        for node, members in enumerate(accelerators):
            switch = graph.switch(f"nvswitch{node}", "nvlink", tier=1)
            for accelerator in members:
                graph.join(accelerator, switch, spec.scale_up_bytes_per_s, spec.scale_up_latency_s, "nvlink")
    for plane in range(spec.planes):
        _plane(spec, graph, accelerators, plane)
    return graph.fabric(spec)


def _plane(spec: Clos, graph: GraphBuilder, accelerators: list[list[str]], plane: int) -> None:
    leaves = [graph.switch(f"leaf{plane * spec.leaves + i}", "leaf", tier=2) for i in range(spec.leaves)]
    spines = [graph.switch(f"spine{plane * spec.spines + i}", "spine", tier=3) for i in range(spec.spines)]
    cores = [graph.switch(f"core{plane * spec.cores + i}", "core", tier=4) for i in range(spec.cores)]
    for node, members in enumerate(accelerators):
        for position, accelerator in enumerate(members):
            rail = position % spec.rails
            leaf = leaves[node // spec.hosts_per_leaf * spec.rails + rail]
            graph.join(accelerator, leaf, spec.port_bytes_per_s, spec.hop_latency_s, "network")
    leaves_per_pod, spines_per_pod = spec.leaves // spec.pods, spec.spines // spec.pods
    for i, leaf in enumerate(leaves):
        for k in range(spines_per_pod):
            if spec.join_rails or k % spec.rails == i % spec.rails:
                graph.join(leaf, spines[i // leaves_per_pod * spines_per_pod + k], spec.uplink_rate, spec.uplink_hop_s, "network")
    for i, spine in enumerate(spines):
        for k, core in enumerate(cores):
            if k % spec.core_groups == i % spines_per_pod % spec.core_groups:
                graph.join(spine, core, spec.core_rate, spec.core_hop_s, "network")
