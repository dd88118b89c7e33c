"""What a fabric consists of, tier by tier: counts, ports, bandwidth up and down, oversubscription, bisection."""

from dataclasses import dataclass

from fabrics.explain.paths import pair_kinds
from fabrics.explain.sections import Rows, Section
from fabrics.graph import Fabric
from fabrics.units import rate

BISECTION_NODES_MOST = 3000


@dataclass(frozen=True)
class Tier:
    """All switches of one kind: how many, and the ports and bandwidth of the first one, towards accelerators and away from them."""

    kind: str
    count: int
    example: str
    ports_down: int
    ports_up: int
    down_bytes_per_s: float
    up_bytes_per_s: float

    @property
    def oversubscription(self) -> float | None:
        """Bandwidth below over bandwidth above; None at the top."""
        return self.down_bytes_per_s / self.up_bytes_per_s if self.up_bytes_per_s else None


MEANING = {
    "nvlink": "joins the accelerators of one node or rack (the scale-up domain)",
    "pcie": "joins the accelerators of one host",
    "shm": "the host's memory, through which its accelerators exchange data",
    "socket": "the host's network stack",
    "leaf": "a switch that hosts plug into",
    "spine": "a switch that only joins leaves",
    "core": "a switch that joins the spines of several pods",
    "router": "a switch of a direct network: hosts below, other routers beside it",
    "switch": "joins accelerators or other switches",
}


def tiers(fabric: Fabric) -> list[Tier]:
    """The kinds of switches, from the accelerators upwards."""
    graph = fabric.graph
    by_kind: dict[str, list[str]] = {}
    for name, data in graph.nodes(data=True):
        if data["kind"] != "accelerator":
            by_kind.setdefault(data["kind"], []).append(name)
    found = []
    for kind, names in by_kind.items():
        first = names[0]
        height = graph.nodes[first]["tier"]
        down = [data["bytes_per_s"] for _, head, data in graph.out_edges(first, data=True) if graph.nodes[head]["tier"] < height]
        up = [data["bytes_per_s"] for _, head, data in graph.out_edges(first, data=True) if graph.nodes[head]["tier"] > height]
        found.append((height, Tier(kind, len(names), first, len(down), len(up), sum(down), sum(up))))
    return [switch for _, switch in sorted(found, key=lambda pair: pair[0])]


def bisection_bytes_per_s(fabric: Fabric) -> float | None:
    """Least capacity between the first and the second half of the ranks (a minimum cut); None where the graph is too large to cut here."""
    if fabric.size < 2 or len(fabric.graph) > BISECTION_NODES_MOST:
        return None
    import networkx as nx

    graph = nx.DiGraph()
    for (tail, head), capacity in zip(fabric.links, fabric.bytes_per_s.tolist(), strict=True):
        graph.add_edge(tail, head, capacity=capacity)
    half = fabric.size // 2
    for rank, name in enumerate(fabric.endpoints):
        graph.add_edge(*(("one half", name) if rank < half else (name, "other half")))
    return float(nx.maximum_flow_value(graph, "one half", "other half"))


def section(fabric: Fabric) -> Section:
    """What a leaf, a spine, oversubscription and bisection are on this fabric."""
    found = tiers(fabric)
    cables = fabric.graph.number_of_edges() // 2
    paragraphs = [
        f"A fabric is the switches and links that join all accelerators so that any can talk to any, seen as one system. "
        f"This one, {fabric.spec.name}, joins {fabric.size:,} accelerators ({fabric.spec.device}) by {cables:,} links in both directions."
    ]
    paragraphs += [_sentence(tier) for tier in found]
    bisection = bisection_bytes_per_s(fabric)
    if bisection is not None:
        half = fabric.size // 2
        paragraphs.append(
            f"Bisection: {rate(bisection)} can pass from the first half of the ranks to the second (minimum cut), "
            f"{rate(bisection / half)} for each of the {half}."
        )
    kinds = pair_kinds(fabric)
    if kinds:
        partner, links = kinds[-1]
        ways = fabric.routes.count(0, partner)
        paragraphs.append(
            f"The farthest accelerators are {len(links)} links apart, {fabric.endpoints[0]} and {fabric.endpoints[partner]} for one, "
            f"by {ways} equal {'path' if ways == 1 else 'paths'}."
        )
    rows = tuple(
        (
            tier.kind,
            f"{tier.count:,}",
            f"{tier.ports_down}",
            f"{tier.ports_up}",
            rate(tier.down_bytes_per_s),
            rate(tier.up_bytes_per_s) if tier.up_bytes_per_s else "top",
            f"{tier.oversubscription:.3g}:1" if tier.oversubscription else "",
        )
        for tier in found
    )
    table = Rows(("switch", "count", "links down", "links up", "bandwidth down", "bandwidth up", "oversubscription"), rows)
    return Section("What it consists of", tuple(paragraphs), (table,), picture="tiers")


def _sentence(tier: Tier) -> str:
    meaning = MEANING.get(tier.kind, MEANING["switch"])
    article = "An" if tier.kind[0] in "aeio" or tier.kind == "nvlink" else "A"
    below = f"with {tier.ports_down} links down ({rate(tier.down_bytes_per_s)})"
    start = f"{article} {tier.kind} switch: {meaning}. Here: {tier.count:,}, such as {tier.example}, {below}"
    ratio = tier.oversubscription
    if ratio is None:
        return f"{start} and none up."
    if ratio <= 1:
        return f"{start} and {tier.ports_up} up ({rate(tier.up_bytes_per_s)}): not oversubscribed ({ratio:.3g}:1), everything below can leave at full rate."
    return (
        f"{start} and {tier.ports_up} up ({rate(tier.up_bytes_per_s)}): oversubscribed {ratio:.3g}:1. "
        f"When everything below sends upwards at once, each gets 1/{ratio:.3g} of its rate."
    )
