"""Any network: nodes and links written out, or read from a GraphML file."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import networkx as nx
from pydantic import AfterValidator, Field, model_validator

from configuration.errors import ConfigurationError, unknown
from configuration.spec import Spec, validated
from fabrics.graph import SCALE_UP_KINDS, Fabric, GraphBuilder
from fabrics.spec import FabricSpec, bytes_per_s, latency_s


class Link(Spec):
    """A link between two nodes, in both directions unless ``one_way`` (from the first to the second)."""

    between: tuple[str, str]
    bytes_per_s: Annotated[float, AfterValidator(bytes_per_s)]
    latency_s: Annotated[float, AfterValidator(latency_s)]
    kind: str = "network"
    one_way: bool = False


class Explicit(FabricSpec):
    """``accelerators`` in the order of ranks, ``switches`` by name with their kind ("leaf"), and ``links``; or ``graphml``, a file with the same.

    In GraphML a node is an accelerator when its attribute ``kind`` is "accelerator"; edges carry ``bytes_per_s`` and ``latency_s``, and may carry
    ``kind``; an undirected graph's edges count in both directions. Accelerators joined by scale-up links (nvlink, pcie, shm, socket) share a domain.
    """

    kind: Literal["explicit"] = "explicit"
    accelerators: tuple[str, ...] = ()
    switches: dict[str, str] = Field(default_factory=dict)
    links: tuple[Link, ...] = ()
    graphml: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.graphml is None) == (not self.accelerators):
            raise ValueError("give either 'accelerators', 'switches' and 'links', or 'graphml'")
        return self


def build(spec: Explicit) -> Fabric:
    """The graph as given; tiers are distances from the accelerators."""
    accelerators, switches, links = (spec.accelerators, spec.switches, spec.links) if spec.graphml is None else _read(spec.graphml)
    joined = nx.Graph()
    joined.add_nodes_from([*accelerators, *switches])
    joined.add_edges_from(link.between for link in links)
    scale_up = nx.Graph()
    scale_up.add_nodes_from(accelerators)
    for link in links:
        for end in link.between:
            if end not in accelerators and end not in switches:
                raise unknown(f"fabric {spec.name}: links: node", end, [*accelerators, *switches])
        if link.kind in SCALE_UP_KINDS:
            scale_up.add_edge(*link.between)
    domain = {name: i for i, part in enumerate(nx.connected_components(scale_up)) for name in part}
    graph = GraphBuilder()
    for name in accelerators:
        graph.accelerator(domain[name], name=name)
    height = nx.multi_source_dijkstra_path_length(joined, set(accelerators), weight=None)
    for name, kind in switches.items():
        graph.switch(name, kind, tier=int(height.get(name, 1)))
    for link in links:
        if link.one_way:
            graph.link(*link.between, link.bytes_per_s, link.latency_s, link.kind)
        else:
            graph.join(*link.between, link.bytes_per_s, link.latency_s, link.kind)
    return graph.fabric(spec)


def _read(path: str) -> tuple[tuple[str, ...], dict[str, str], tuple[Link, ...]]:
    try:
        graph = nx.read_graphml(path)
    except FileNotFoundError:
        raise ConfigurationError(f"graphml: file {path!r} does not exist") from None
    except Exception as error:
        raise ConfigurationError(f"graphml: {path} is not readable as GraphML: {error}") from None
    accelerators = tuple(str(name) for name, kind in graph.nodes(data="kind") if kind == "accelerator")
    if not accelerators:
        raise ConfigurationError(f"graphml: {path}: no node has the attribute kind = accelerator")
    switches = {str(name): str(kind or "switch") for name, kind in graph.nodes(data="kind") if kind != "accelerator"}
    links = []
    for tail, head, data in graph.edges(data=True):
        fields: dict[str, Any] = {field: value for field, value in data.items() if field != "id"}
        links.append(validated(Link, {"between": (str(tail), str(head)), "one_way": graph.is_directed(), **fields}, f"{path}: edge {tail} - {head}"))
    return accelerators, switches, tuple(links)


def relative_to(data: dict[str, Any], fabric_file: Path) -> None:
    """Make the path in ``graphml`` relative to the fabric file that names it."""
    named = data.get("graphml")
    if isinstance(named, str) and not Path(named).is_absolute():
        data["graphml"] = str(fabric_file.parent / named)
