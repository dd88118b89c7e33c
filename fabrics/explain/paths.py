"""The way between two accelerators, hop by hop, for each kind of pair that the fabric has."""

import numpy as np

from configuration.errors import ConfigurationError, did_you_mean
from fabrics.explain.sections import Rows, Section
from fabrics.graph import Fabric
from fabrics.units import rate, seconds

PARTNERS_MOST = 4096


def pair_kinds(fabric: Fabric) -> list[tuple[int, list[int]]]:
    """For rank 0: the first partner behind each different sequence of switch kinds, and the links of one path to it; nearest first."""
    found: dict[tuple[str, ...], tuple[int, list[int]]] = {}
    step = max(1, fabric.size // PARTNERS_MOST)
    partners = [*range(1, min(fabric.size, 64)), *range(64, fabric.size, step)]
    for partner in partners if fabric.size <= 256 else _spread(partners):
        links = fabric.routes.path(0, partner, fabric.spec.routing)
        signature = tuple(fabric.graph.nodes[fabric.links[link][1]]["kind"] for link in links)
        found.setdefault(signature, (partner, links))
    return sorted(found.values(), key=lambda item: len(item[1]))


def _spread(partners: list[int]) -> list[int]:
    """Partners at doubling distance: enough to meet every tier, few enough for large fabrics."""
    return sorted({partners[min(int(2**k) - 1, len(partners) - 1)] for k in np.arange(0, np.log2(len(partners)) + 1, 0.5)})


def named_pair(fabric: Fabric, text: str) -> tuple[int, int]:
    """Ranks of "gpu0:gpu5". Raises ConfigurationError unless it names two different accelerators."""
    one, _, other = text.partition(":")
    rank = {name: i for i, name in enumerate(fabric.endpoints)}
    for name in (one, other):
        if name not in rank:
            raise ConfigurationError(f"--pair {text}: no accelerator {name!r}; a pair is written gpu0:gpu1{did_you_mean(name, fabric.endpoints)}")
    if one == other:
        raise ConfigurationError(f"--pair {text}: two different accelerators are needed")
    return rank[one], rank[other]


def section(fabric: Fabric, pair: tuple[int, int] | None = None) -> Section:
    """One path hop by hop for every kind of pair, or for the ``pair`` of ranks alone."""
    tables, paragraphs = [], []
    chosen = [(0, partner, links) for partner, links in pair_kinds(fabric)]
    if pair is not None:
        chosen = [(*pair, fabric.routes.path(*pair, fabric.spec.routing))]
    for first, partner, links in chosen:
        rows, total = [], 0.0
        for link in links:
            tail, head = fabric.links[link]
            data = fabric.graph.edges[tail, head]
            total += data["latency_s"]
            rows.append((f"{tail} -> {head}", data["kind"], seconds(data["latency_s"]), seconds(total), rate(fabric.bytes_per_s[link])))
        ways = fabric.routes.count(first, partner)
        narrowest = min(float(fabric.bytes_per_s[link]) for link in links)
        ends = f"{fabric.endpoints[first]} to {fabric.endpoints[partner]}"
        paragraphs.append(
            f"{ends}: {len(links)} links, {seconds(total)} on the wire, at most {rate(narrowest)} on one path; {ways} equal {'path' if ways == 1 else 'paths'}."
        )
        tables.append(Rows(("hop", "link", "latency", "so far", "rate"), tuple(rows)))
    return Section("Paths, hop by hop", tuple(paragraphs), tuple(tables), paired=True)
