"""Equal-cost shortest paths towards each destination, and the load that flows put on links."""

from dataclasses import dataclass

import networkx as nx
import numpy as np

from fabrics.graph import FORWARDING_METRIC, NETWORK_METRIC, SCALE_UP_KINDS, SCALE_UP_METRIC
from fabrics.network import FloatArray, IntArray
from fabrics.spec import Routing

Hop = tuple[int, int, float]
"""Link, node that it leads to, share of the traffic that takes it."""


@dataclass(frozen=True)
class Toward:
    """All shortest paths to one destination, as next hops; nodes are numbers.

    ``order`` runs from far to near. ``wire_s`` is the latency of the slowest of the shortest paths from each node, ``kind_mask`` the link
    kinds on them, bit by bit.
    """

    order: list[int]
    hops: dict[int, list[Hop]]
    wire_s: dict[int, float]
    kind_mask: dict[int, int]


class Routes:
    """Routing over one graph; what is found for a destination is kept."""

    def __init__(self, graph: nx.DiGraph, endpoints: tuple[str, ...], links: list[tuple[str, str]], kinds: list[str]) -> None:
        self._number = {name: i for i, name in enumerate(graph.nodes)}
        self._names = list(graph.nodes)
        self._endpoints = [self._number[name] for name in endpoints]
        self._rank = {node: rank for rank, node in enumerate(self._endpoints)}
        self._links = len(links)
        self._latency_s = [data["latency_s"] for _, _, data in graph.edges(data=True)]
        self._health = [data["health"] for _, _, data in graph.edges(data=True)]
        self._kind_bit = [1 << kinds.index(kind) for _, _, kind in graph.edges(data="kind")]
        self._out: list[list[tuple[int, int, int]]] = [[] for _ in self._names]
        self._reversed = nx.DiGraph()
        self._reversed.add_nodes_from(range(len(self._names)))
        accelerators = {self._number[name] for name, kind in graph.nodes(data="kind") if kind == "accelerator"}
        for link, (tail, head) in enumerate(links):
            one, other = self._number[tail], self._number[head]
            metric = SCALE_UP_METRIC if graph.edges[tail, head]["kind"] in SCALE_UP_KINDS else NETWORK_METRIC
            metric += FORWARDING_METRIC if other in accelerators else 0
            self._out[one].append((link, other, metric))
            self._reversed.add_edge(other, one, metric=metric)
        self._toward: dict[int, Toward] = {}

    def toward(self, rank: int) -> Toward:
        """Shortest paths to the endpoint of a rank."""
        if rank not in self._toward:
            self._toward[rank] = self._find(self._endpoints[rank])
        return self._toward[rank]

    def _find(self, destination: int) -> Toward:
        distance = nx.single_source_dijkstra_path_length(self._reversed, destination, weight="metric")
        near_to_far = list(distance)
        hops: dict[int, list[Hop]] = {destination: []}
        wire_s = {destination: 0.0}
        kind_mask = {destination: 0}
        width = {destination: float("inf")}
        for node in near_to_far[1:]:
            found = [(link, head) for link, head, metric in self._out[node] if head in distance and distance[head] + metric == distance[node]]
            # A switch that knows of a damaged link further on sends less that way (weighted cost multi-path); the last link has no alternative.
            widths = [1.0 if head == destination else min(self._health[link], width[head]) for link, head in found]
            total = sum(widths)
            hops[node] = [(link, head, share / total) for (link, head), share in zip(found, widths, strict=True)]
            width[node] = float("inf") if found[0][1] == destination else total
            wire_s[node] = max(self._latency_s[link] + wire_s[head] for link, head in found)
            kind_mask[node] = 0
            for link, head in found:
                kind_mask[node] |= self._kind_bit[link] | kind_mask[head]
        return Toward(near_to_far[::-1], hops, wire_s, kind_mask)

    def loads(self, src: IntArray, dst: IntArray, size: FloatArray, routing: Routing) -> FloatArray:
        """Bytes on every link when ``size[i]`` bytes go from rank ``src[i]`` to rank ``dst[i]``."""
        if routing.mode == "ideal":
            return self._spread(src, dst, size)
        load = [0.0] * self._links
        subflows = routing.flows_per_pair if routing.mode == "ecmp" else 1
        for s, d, bytes_ in zip(src.tolist(), dst.tolist(), size.tolist(), strict=True):
            for subflow in range(subflows):
                for link in self.path(s, d, routing, subflow):
                    load[link] += bytes_ / subflows
        return np.array(load)

    def _spread(self, src: IntArray, dst: IntArray, size: FloatArray) -> FloatArray:
        load = [0.0] * self._links
        order = np.argsort(dst, kind="stable")
        src, dst, size = src[order], dst[order], size[order]
        starts = np.flatnonzero(np.r_[True, dst[1:] != dst[:-1]]) if len(dst) else np.array([], dtype=np.int64)
        for start, stop in zip(starts, [*starts[1:], len(dst)], strict=True):
            toward = self.toward(int(dst[start]))
            at: dict[int, float] = {}
            for rank, bytes_ in zip(src[start:stop].tolist(), size[start:stop].tolist(), strict=True):
                node = self._endpoints[rank]
                at[node] = at.get(node, 0.0) + bytes_
            for node in toward.order:
                bytes_ = at.get(node, 0.0)
                if bytes_:
                    for link, head, share in toward.hops[node]:
                        load[link] += bytes_ * share
                        at[head] = at.get(head, 0.0) + bytes_ * share
        return np.array(load)

    def path(self, src: int, dst: int, routing: Routing, subflow: int = 0) -> list[int]:
        """The links that one (sub)flow takes; for ideal routing the first of the equal paths."""
        toward = self.toward(dst)
        node = self._endpoints[src]
        links = []
        while toward.hops[node]:
            hops = toward.hops[node]
            choice = 0
            if len(hops) > 1 and routing.mode == "ecmp":
                choice = mix(routing.seed, src, dst, subflow, node) % len(hops)
            elif len(hops) > 1 and routing.mode == "static":
                choice = (src + dst) % len(hops)
            link, node, _ = hops[choice]
            links.append(link)
        return links

    def count(self, src: int, dst: int) -> int:
        """Number of equal shortest paths."""
        toward = self.toward(dst)
        ways = {self._endpoints[dst]: 1}
        for node in reversed(toward.order[:-1]):
            ways[node] = sum(ways[head] for _, head, _ in toward.hops[node])
        return ways[self._endpoints[src]]

    def between(self, src: int, toward: Toward) -> set[str]:
        """Names of all nodes on the shortest paths."""
        seen = {self._endpoints[src]}
        for node in toward.order:
            if node in seen:
                seen |= {head for _, head, _ in toward.hops[node]}
        return {self._names[node] for node in seen}

    def latencies(self, src: IntArray, dst: IntArray) -> tuple[FloatArray, IntArray]:
        """Wire latency of each pair (slowest of its shortest paths) and the mask of link kinds on the way."""
        wire_s, masks = [], []
        for s, d in zip(src.tolist(), dst.tolist(), strict=True):
            toward = self.toward(d)
            node = self._endpoints[s]
            wire_s.append(toward.wire_s[node])
            masks.append(toward.kind_mask[node])
        return np.array(wire_s), np.array(masks, dtype=np.int64)


def mix(*numbers: int) -> int:
    """A 64-bit hash of small integers (the finaliser of SplitMix64, Steele et al. 2014, applied in turn)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state
