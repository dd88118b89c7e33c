"""A Clos network under ideal routing by symmetry: no graph, one link for every bundle of links that always carry the same.

Loads follow from where a flow turns round: in the node, at the leaf, at the spines of the pod or at the cores; there it is spread evenly over all equal links.
"""

from functools import cached_property

import numpy as np

from fabrics.network import FloatArray, IntArray
from fabrics.spec import Routing
from fabrics.topologies.clos import Clos

NVLINK, NETWORK = "nvlink", "network"


def is_symmetric(spec: Clos) -> bool:
    """Whether this file knows the routes of ``spec``: connected, and rails without common spines only in one plane and one pod."""
    leaf_groups = spec.leaves // spec.rails
    connected = (spec.spines > 0 or leaf_groups == 1) and (spec.cores > 0 or spec.pods == 1)
    if spec.spines == 0 and spec.join_rails and spec.rails > 1:
        return False
    return connected and (spec.join_rails or spec.rails == 1 or (spec.planes == 1 and spec.pods == 1))


class ClosSymmetry:
    """Network of a ``Clos`` specification without faults. Links: per accelerator up and down (node switch, leaf), per leaf, per pod; up before down."""

    def __init__(self, spec: Clos) -> None:
        self._spec = spec
        self._size = spec.nodes * spec.accelerators_per_node
        pods = spec.pods if spec.cores else 0
        self._counts = {"node": self._size if spec.accelerators_per_node > 1 else 0, "host": self._size, "leaf": spec.leaves if spec.spines else 0, "pod": pods}
        starts = np.cumsum([0, *(2 * count for count in self._counts.values())])
        self._start = dict(zip(self._counts, starts.tolist(), strict=False))
        self._links = int(starts[-1])

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of link that occur."""
        return sorted({NETWORK, *([NVLINK] if self._counts["node"] else [])})

    @cached_property
    def kind_index(self) -> IntArray:
        """Index into ``kinds`` of each link."""
        index = np.full(self._links, self.kinds.index(NETWORK), dtype=np.int64)
        if self._counts["node"]:
            index[: 2 * self._size] = self.kinds.index(NVLINK)
        return index

    @cached_property
    def bytes_per_s(self) -> FloatArray:
        """Rate of each link."""
        spec = self._spec
        rates = {"node": spec.scale_up_bytes_per_s or 0.0, "host": spec.port_bytes_per_s, "leaf": spec.uplink_rate if spec.spines else 0.0}
        rates["pod"] = spec.core_rate if spec.cores else 0.0
        return np.concatenate([np.full(2 * count, rates[part]) for part, count in self._counts.items()])

    @cached_property
    def opposite(self) -> IntArray:
        """Index of each link's other direction."""
        parts = [np.roll(np.arange(start, start + 2 * count), count) for start, count in zip(self._start.values(), self._counts.values(), strict=True)]
        return np.concatenate(parts)

    @cached_property
    def _places(self) -> tuple[IntArray, IntArray, IntArray]:
        """Node, rail and leaf of all ranks."""
        spec = self._spec
        node, position = np.divmod(np.arange(self._size), spec.accelerators_per_node)
        rail = position % spec.rails
        return node, rail, node // spec.hosts_per_leaf * spec.rails + rail

    def _place(self, rank: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Node, rail and leaf of ranks."""
        node, rail, leaf = self._places
        return node[rank], rail[rank], leaf[rank]

    def loads(self, src: IntArray, dst: IntArray, size: FloatArray, routing: Routing) -> FloatArray:
        """Bytes on every link; ``routing`` is ideal."""
        spec = self._spec
        src, dst, size = self._forwarded(src, dst, size)
        src_node, _, src_leaf = self._place(src)
        dst_node, _, dst_leaf = self._place(dst)
        load = np.zeros(self._links)
        inside = (src_node == dst_node) & (spec.accelerators_per_node > 1)
        self._add(load, "node", src[inside], dst[inside], size[inside])
        out = ~inside
        self._add(load, "host", src[out], dst[out], size[out] / spec.planes)
        over = out & (src_leaf != dst_leaf)
        if over.any():
            self._add(load, "leaf", src_leaf[over], dst_leaf[over], size[over] / (spec.planes * spec.spines_per_leaf))
        leaves_per_pod = spec.leaves // spec.pods
        far = over & (src_leaf // leaves_per_pod != dst_leaf // leaves_per_pod)
        if far.any():
            paths = spec.planes * (spec.spines // spec.pods) * spec.cores_per_spine
            self._add(load, "pod", src_leaf[far] // leaves_per_pod, dst_leaf[far] // leaves_per_pod, size[far] / paths)
        return load

    def _add(self, load: FloatArray, part: str, src: IntArray, dst: IntArray, size: FloatArray) -> None:
        start, count = self._start[part], self._counts[part]
        load[start : start + count] += np.bincount(src, size, count)
        load[start + count : start + 2 * count] += np.bincount(dst, size, count)

    def _forwarded(self, src: IntArray, dst: IntArray, size: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
        """Where rails do not meet, a flow to another rail changes it inside a node: half of it in the source's, half in the destination's."""
        crossing = self._crossing(src, dst)
        if not crossing.any():
            return src, dst, size
        spec = self._spec
        s, d, each = src[crossing], dst[crossing], size[crossing] / (2 * spec.accelerators_per_node // spec.rails)
        parts = [(src[~crossing], dst[~crossing], size[~crossing])]
        for k in range(spec.accelerators_per_node // spec.rails):
            near = s // spec.accelerators_per_node * spec.accelerators_per_node + d % spec.accelerators_per_node % spec.rails + k * spec.rails
            far = d // spec.accelerators_per_node * spec.accelerators_per_node + s % spec.accelerators_per_node % spec.rails + k * spec.rails
            parts += [(s, near, each), (near, d, each), (s, far, each), (far, d, each)]
        joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        return joined[0], joined[1], joined[2]

    def _crossing(self, src: IntArray, dst: IntArray) -> np.ndarray:
        spec = self._spec
        if spec.join_rails or spec.rails == 1:
            return np.zeros(len(src), dtype=bool)
        (src_node, src_rail, _), (dst_node, dst_rail, _) = self._place(src), self._place(dst)
        return np.asarray((src_node != dst_node) & (src_rail != dst_rail))

    def latencies(self, src: IntArray, dst: IntArray) -> tuple[FloatArray, IntArray]:
        """Wire latency of each pair and the mask of link kinds on its way."""
        spec = self._spec
        crossing = self._crossing(src, dst)
        src_node, _, src_leaf = self._place(src)
        dst_node, _, dst_leaf = self._place(dst)
        inside = (src_node == dst_node) & (spec.accelerators_per_node > 1)
        leaves_per_pod = spec.leaves // spec.pods
        group = src_leaf // spec.rails != dst_leaf // spec.rails
        climbs = np.where(crossing, group, src_leaf != dst_leaf)
        wire_s = np.full(len(src), 2 * spec.hop_latency_s)
        wire_s += np.where(climbs, 2 * spec.uplink_hop_s, 0.0)
        wire_s += np.where(src_leaf // leaves_per_pod != dst_leaf // leaves_per_pod, 2 * spec.core_hop_s, 0.0)
        wire_s += np.where(crossing, 2 * spec.scale_up_latency_s, 0.0)
        wire_s = np.where(inside, 2 * spec.scale_up_latency_s, wire_s)
        network, nvlink = 1 << self.kinds.index(NETWORK), (1 << self.kinds.index(NVLINK)) if NVLINK in self.kinds else 0
        return wire_s, np.where(inside, nvlink, np.where(crossing, network | nvlink, network))

    def link_tier(self, link: int) -> str:
        """Kind of switch that the link leads up to."""
        return {"node": "nvlink", "host": "leaf", "leaf": "spine", "pod": "core"}[self._part(link)]

    def _part(self, link: int) -> str:
        return max((name for name, count in self._counts.items() if count and self._start[name] <= link), key=lambda name: self._start[name])

    def link_name(self, link: int) -> str:
        """Name of the first of the links that the entry stands for."""
        spec = self._spec
        part = self._part(link)
        down, i = divmod(link - self._start[part], self._counts[part])
        if part == "node":
            ends = (f"gpu{i}", f"nvswitch{i // spec.accelerators_per_node}")
        elif part == "host":
            ends = (f"gpu{i}", f"leaf{int(self._place(np.array([i]))[2][0])}")
        elif part == "leaf":
            pod = i // (spec.leaves // spec.pods)
            ends = (f"leaf{i}", f"spine{pod * (spec.spines // spec.pods) + (0 if spec.join_rails else i % spec.rails)}")
        else:
            ends = (f"spine{i * (spec.spines // spec.pods)}", "core0")
        return "->".join(reversed(ends) if down else ends)
