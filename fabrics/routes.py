"""Equal-cost shortest paths towards each destination, and the load that flows put on links."""

from dataclasses import dataclass
from math import inf

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

    ``order`` runs from far to near over the nodes that forward. ``wire_s`` is the latency of the slowest of the shortest paths from each node,
    ``kind_mask`` the link kinds on them, bit by bit. Accelerators that only send are added when they are asked for.
    """

    destination: int
    distance: dict[int, int]
    order: list[int]
    hops: dict[int, list[Hop]]
    wire_s: dict[int, float]
    kind_mask: dict[int, int]
    width: dict[int, float]


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
        self._accelerators = accelerators
        self._switches = nx.DiGraph()
        self._switches.add_nodes_from(set(self._number.values()) - accelerators)
        for link, (tail, head) in enumerate(links):
            one, other = self._number[tail], self._number[head]
            metric = SCALE_UP_METRIC if graph.edges[tail, head]["kind"] in SCALE_UP_KINDS else NETWORK_METRIC
            metric += FORWARDING_METRIC if other in accelerators else 0
            self._out[one].append((link, other, metric))
            self._reversed.add_edge(other, one, metric=metric)
            if one not in accelerators and other not in accelerators:
                self._switches.add_edge(other, one, metric=metric)
        self._toward: dict[int, Toward] = {}

    def toward(self, rank: int) -> Toward:
        """Shortest paths to the endpoint of a rank."""
        if rank not in self._toward:
            self._toward[rank] = self._find(self._endpoints[rank])
        return self._toward[rank]

    def _find(self, destination: int) -> Toward:
        distance = self._through_switches(destination)
        if any(not any(head in distance for _, head, _ in self._out[node]) for node in self._endpoints if node != destination):
            # Somebody can only be reached through another accelerator.
            distance = nx.single_source_dijkstra_path_length(self._reversed, destination, weight="metric")
        near_to_far = list(distance)
        toward = Toward(destination, distance, near_to_far[::-1], {destination: []}, {destination: 0.0}, {destination: 0}, {destination: inf})
        for node in near_to_far[1:]:
            self._add(toward, node)
        return toward

    def _through_switches(self, destination: int) -> dict[int, int]:
        """Distance of the destination and all switches from which it is reached without another accelerator; nearest first."""
        best: dict[int, int] = {}
        for start, edge in self._reversed.adj[destination].items():
            if start not in self._accelerators:
                for node, further in nx.single_source_dijkstra_path_length(self._switches, start, weight="metric").items():
                    best[node] = min(best.get(node, edge["metric"] + further), edge["metric"] + further)
        return {destination: 0, **dict(sorted(best.items(), key=lambda item: item[1]))}

    def _add(self, toward: Toward, node: int) -> None:
        """Find the next hops of a node whose nearer neighbours are known."""
        near = [(toward.distance[head] + metric, link, head) for link, head, metric in self._out[node] if head in toward.distance and head != node]
        least = toward.distance.get(node) or min(total for total, _, _ in near)
        found = [(link, head) for total, link, head in near if total == least]
        # A switch that knows of a damaged link further on sends less that way (weighted cost multi-path); the last link has no alternative.
        widths = [1.0 if head == toward.destination else min(self._health[link], toward.width[head]) for link, head in found]
        total = sum(widths)
        toward.hops[node] = [(link, head, share / total) for (link, head), share in zip(found, widths, strict=True)]
        toward.width[node] = inf if found[0][1] == toward.destination else total
        toward.wire_s[node] = max(self._latency_s[link] + toward.wire_s[head] for link, head in found)
        mask = 0
        for link, head in found:
            mask |= self._kind_bit[link] | toward.kind_mask[head]
        toward.kind_mask[node] = mask

    def _from(self, rank: int, toward: Toward) -> int:
        """Node of a sending rank, its next hops found."""
        node = self._endpoints[rank]
        if node not in toward.hops:
            self._add(toward, node)
        return node

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
        if not len(dst):
            return np.array(load)
        order = np.argsort(dst, kind="stable")
        src, dst, size = src[order], dst[order], size[order]
        starts = np.flatnonzero(np.r_[True, dst[1:] != dst[:-1]])
        for start, stop in zip(starts, [*starts[1:], len(dst)], strict=True):
            toward = self.toward(int(dst[start]))
            at: dict[int, float] = {}
            senders = []
            for rank, bytes_ in zip(src[start:stop].tolist(), size[start:stop].tolist(), strict=True):
                node = self._from(rank, toward)
                at[node] = at.get(node, 0.0) + bytes_
                if node not in toward.distance:
                    senders.append(node)
            for node in [*dict.fromkeys(senders), *toward.order]:
                bytes_ = at.get(node, 0.0)
                if bytes_:
                    for link, head, share in toward.hops[node]:
                        load[link] += bytes_ * share
                        at[head] = at.get(head, 0.0) + bytes_ * share
        return np.array(load)

    def path(self, src: int, dst: int, routing: Routing, subflow: int = 0) -> list[int]:
        """The links that one (sub)flow takes; for ideal routing the first of the equal paths."""
        toward = self.toward(dst)
        node = self._from(src, toward)
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
        sender = self._from(src, toward)
        ways = {self._endpoints[dst]: 1}
        for node in [*reversed(toward.order[:-1]), sender]:
            ways[node] = sum(ways[head] for _, head, _ in toward.hops[node])
        return ways[sender]

    def between(self, src: int, toward: Toward) -> set[str]:
        """Names of all nodes on the shortest paths."""
        sender = self._from(src, toward)
        seen = {sender}
        for node in [sender, *toward.order]:
            if node in seen:
                seen |= {head for _, head, _ in toward.hops[node]}
        return {self._names[node] for node in seen}

    def next_hops(self, name: str, dst: int) -> list[str]:
        """Names of the nodes to which a node sends what is for rank ``dst``, all on shortest paths."""
        toward = self.toward(dst)
        node = self._number[name]
        if node not in toward.hops:
            self._add(toward, node)
        return [self._names[head] for _, head, _ in toward.hops[node]]

    def latencies(self, src: IntArray, dst: IntArray) -> tuple[FloatArray, IntArray]:
        """Wire latency of each pair (slowest of its shortest paths) and the mask of link kinds on the way."""
        wire_s, masks = [], []
        for s, d in zip(src.tolist(), dst.tolist(), strict=True):
            toward = self.toward(d)
            node = self._from(s, toward)
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
