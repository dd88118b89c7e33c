"""A fabric: the directed graph, its endpoints in the order of ranks, its links as arrays."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from configuration.errors import ConfigurationError, did_you_mean
from fabrics.network import FloatArray, IntArray, Network
from fabrics.spec import FabricSpec, Routing

if TYPE_CHECKING:
    from fabrics.routes import Routes

SCALE_UP_KINDS = ("nvlink", "pcie", "shm", "socket")
SCALE_UP_METRIC, NETWORK_METRIC, FORWARDING_METRIC = 1, 10, 1000
"""Routes take the scale-up switch before the network, and pass through another accelerator only where nothing else leads."""


class GraphBuilder:
    """Collects switches, accelerators and links of a topology."""

    def __init__(self) -> None:
        self.graph = nx.DiGraph()
        self.endpoints: list[str] = []

    def accelerator(self, domain: int, name: str | None = None, position: tuple[int, ...] | None = None) -> str:
        """Add the next endpoint; ``domain`` numbers the scale-up domain (node) that it belongs to, ``position`` is its place in a direct network."""
        name = name or f"gpu{len(self.endpoints)}"
        self.graph.add_node(name, kind="accelerator", tier=0, domain=domain, position=position)
        self.endpoints.append(name)
        return name

    def switch(self, name: str, kind: str, tier: int) -> str:
        """Add a switch; ``tier`` counts upwards from the accelerators."""
        self.graph.add_node(name, kind=kind, tier=tier)
        return name

    def join(self, one: str, other: str, bytes_per_s: float, latency_s: float, kind: str) -> None:
        """Add a link in both directions, each of the full rate; parallel links between the same two add their rates."""
        for tail, head in ((one, other), (other, one)):
            self.link(tail, head, bytes_per_s, latency_s, kind)

    def link(self, tail: str, head: str, bytes_per_s: float, latency_s: float, kind: str) -> None:
        """Add a link in one direction."""
        if self.graph.has_edge(tail, head):
            self.graph.edges[tail, head]["bytes_per_s"] += bytes_per_s
        else:
            self.graph.add_edge(tail, head, bytes_per_s=bytes_per_s, latency_s=latency_s, kind=kind, health=1.0)

    def fabric(self, spec: FabricSpec) -> "Fabric":
        """The finished fabric. Raises ConfigurationError when some endpoint cannot reach another."""
        graph = self.graph
        domains = np.array([graph.nodes[name]["domain"] for name in self.endpoints], dtype=np.int64)
        fabric = Fabric(spec, tuple(self.endpoints), domains, lambda: graph)
        fabric.check_connected()
        return fabric


class Fabric:
    """A network and how it is used. ``endpoints[rank]`` is the graph node of a rank, ``domains[rank]`` its scale-up domain (usually a node).

    Edges of ``graph`` carry ``bytes_per_s`` and ``latency_s`` of that direction, ``kind``, and ``health`` (share of the rate left after a fault);
    nodes carry ``kind``, ``tier`` and, for accelerators, ``domain``. A fabric never changes: ``without`` gives a copy with faults, named
    by ``failed`` and ``slow``.
    ``symmetric``: prices ideal routing without the graph, which is then built only when something else needs it.
    """

    def __init__(
        self, spec: FabricSpec, endpoints: tuple[str, ...], domains: IntArray, make_graph: Callable[[], nx.DiGraph], symmetric: Network | None = None
    ) -> None:
        if not endpoints:
            raise ConfigurationError(f"fabric {spec.name}: it has no accelerators")
        self.spec = spec
        self.endpoints = endpoints
        self.domains = domains
        self.cache: dict[Any, Any] = {}
        self.failed: tuple[str, ...] = ()
        self.slow: dict[str, float] = {}
        self._make_graph = make_graph
        self._symmetric = symmetric

    @cached_property
    def graph(self) -> nx.DiGraph:
        """The directed graph."""
        return self._make_graph()

    def network(self, routing: Routing) -> Network:
        """What prices collectives under a routing: the symmetric network where there is one and routing is ideal, else this graph."""
        return self._symmetric if self._symmetric is not None and routing.mode == "ideal" else self

    def explicit(self) -> "Fabric":
        """This fabric priced link by link on its graph."""
        return self if self._symmetric is None else Fabric(self.spec, self.endpoints, self.domains, lambda: self.graph)

    def check_connected(self) -> None:
        """Raises ConfigurationError when an endpoint cannot reach, or be reached by, the first."""
        first = self.endpoints[0]
        reached, reaching = nx.descendants(self.graph, first), nx.ancestors(self.graph, first)
        cut_off = [name for name in self.endpoints[1:] if name not in reached or name not in reaching]
        if cut_off:
            count = f" ({len(cut_off)} endpoints cut off)"
            raise ConfigurationError(f"fabric {self.spec.name}: the graph is not connected: no path between {first} and {cut_off[0]}{count}")

    @property
    def size(self) -> int:
        """Number of endpoints."""
        return len(self.endpoints)

    @cached_property
    def links(self) -> list[tuple[str, str]]:
        """All directed links; the arrays below have one entry for each."""
        return list(self.graph.edges)

    @cached_property
    def bytes_per_s(self) -> FloatArray:
        """Rate of each link (what is left of it after faults)."""
        return np.array([data["bytes_per_s"] * data["health"] for _, _, data in self.graph.edges(data=True)])

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of link that occur."""
        return sorted({kind for _, _, kind in self.graph.edges(data="kind")})

    @cached_property
    def kind_index(self) -> IntArray:
        """Index into ``kinds`` of each link."""
        index = {kind: i for i, kind in enumerate(self.kinds)}
        return np.array([index[kind] for _, _, kind in self.graph.edges(data="kind")], dtype=np.int64)

    @cached_property
    def opposite(self) -> IntArray:
        """Index of each link's other direction; its own where there is none."""
        index = {link: i for i, link in enumerate(self.links)}
        return np.array([index.get((head, tail), i) for (tail, head), i in index.items()], dtype=np.int64)

    @cached_property
    def routes(self) -> "Routes":
        """Shortest paths, found when they are needed."""
        from fabrics.routes import Routes

        return Routes(self.graph, self.endpoints, self.links, self.kinds)

    def loads(self, src: IntArray, dst: IntArray, size: FloatArray, routing: Routing) -> FloatArray:
        """Bytes on every link when ``size[i]`` bytes go from rank ``src[i]`` to rank ``dst[i]``."""
        return self.routes.loads(src, dst, size, routing)

    def latencies(self, src: IntArray, dst: IntArray) -> tuple[FloatArray, IntArray]:
        """Wire latency of each pair and the mask of link kinds (bits in the order of ``kinds``) on its way."""
        return self.routes.latencies(src, dst)

    def link_tier(self, link: int) -> str:
        """Kind of switch that the link leads up to ("nvlink", "leaf", "spine", ...); "accelerator" between accelerators."""
        nodes = [self.graph.nodes[end] for end in self.links[link]]
        return str(max(nodes, key=lambda node: int(node["tier"]))["kind"])

    def link_name(self, link: int) -> str:
        """ "leaf0->spine1"."""
        return "->".join(self.links[link])

    def without(self, failed: tuple[str, ...] = (), slow: Mapping[str, float] | None = None) -> "Fabric":
        """This fabric with faults: ``failed`` switches or links ("spine1", "leaf0:spine0"), ``slow`` links to the share of the rate that is left.

        Links are hit in both directions. Raises ConfigurationError for an unknown name, a share outside (0, 1], or when the fabric falls apart.
        """
        graph = self.graph.copy()
        for name in failed:
            if ":" in name:
                graph.remove_edges_from(self._both_directions(name))
            else:
                graph.remove_node(self._switch(name))
        for name, share in (slow or {}).items():
            if not 0 < share <= 1:
                raise ConfigurationError(f"slow {name}: the share of the rate must be over 0 and at most 1, got {share:g}")
            for tail, head in self._both_directions(name):
                if graph.has_edge(tail, head):
                    graph.edges[tail, head]["health"] *= share
        fabric = Fabric(self.spec, self.endpoints, self.domains, lambda: graph)
        fabric.failed = self.failed + failed
        fabric.slow = self.slow | {name: self.slow.get(name, 1.0) * share for name, share in (slow or {}).items()}
        fabric.check_connected()
        return fabric

    def _switch(self, name: str) -> str:
        if name not in self.graph:
            raise ConfigurationError(f"fabric {self.spec.name}: no switch {name!r}{did_you_mean(name, self.graph.nodes)}")
        if name in self.endpoints:
            raise ConfigurationError(f"fabric {self.spec.name}: {name} is an endpoint; only switches and links can fail")
        return name

    def _both_directions(self, name: str) -> list[tuple[str, str]]:
        one, _, other = name.partition(":")
        if not self.graph.has_edge(one, other) and not self.graph.has_edge(other, one):
            names = [f"{tail}:{head}" for tail, head in self.graph.edges]
            raise ConfigurationError(f"fabric {self.spec.name}: no link {name!r}; a link is written leaf0:spine1{did_you_mean(name, names)}")
        return [(one, other), (other, one)]
