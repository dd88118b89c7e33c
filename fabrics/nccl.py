"""How NCCL 2.30.7 chooses algorithm and protocol: its own estimate of their time (src/graph/tuning.cc, commit 5067397).

NCCL judges by these numbers, which know nothing of switch hops or of other traffic; what the choice then costs is priced on the graph.
Microseconds and GB/s (1e9) as in that file.
"""

from dataclasses import dataclass
from math import inf, log2

PROTOCOLS = ("LL", "LL128", "Simple")
BASE_US = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4), "nvls": (0.0, 0.0, 0.0)}
NVLINK_US = {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4), "nvls": (inf, inf, 25.0)}
NET_US = {"tree": (5.0, 8.5, 14.0), "ring": (2.7, 4.0, 14.0), "nvls": (inf, inf, 18.0)}
HOST_OVERHEAD_US = {"intel": 1.0, "amd": 2.0}
RING_SIMPLE_FACTOR = 1.4
RING_SIMPLE_BYTES = 64


@dataclass(frozen=True)
class Generation:
    """Limits of a GPU generation in GB/s, for 1, 2 and more nodes, and NVLS efficiency."""

    ll: tuple[float, float, float]
    ring_ll128: tuple[float, float, float]
    tree_ll128: tuple[float, float, float]
    tree_simple: tuple[float, float, float]
    nvls_efficiency: float


GENERATIONS = {
    "ampere": Generation((87.7, 22.5, 19.0), (20.0, 20.0, 20.0), (20.0, 20.0, 20.0), (24.0, 23.6, 17.8), 0.0),
    "hopper": Generation((141.0, 45.0, 35.0), (36.7, 36.7, 36.7), (36.7, 36.7, 29.0), (38.7, 41.4, 36.0), 0.85),
    "blackwell": Generation((282.0, 90.0, 70.0), (40.0, 40.0, 40.0), (55.6, 31.67, 20.0), (70.0, 42.8, 24.0), 0.74),
}
TREE_CORRECTION = {
    "LL": (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1, 1),
    "LL128": (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1, 1, 1),
    "Simple": (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9, 0.9),
}
"""What an all-reduce's tree reaches of its bandwidth, for 64 B, 128 B, ... 512 MB: pipelining fills late."""


@dataclass(frozen=True)
class Job:
    """Who communicates, and the bus bandwidth of all channels inside a node and out of it (what NCCL's graph search finds)."""

    nodes: int
    ranks_per_node: int
    intra_gb_per_s: float
    inter_gb_per_s: float
    channels: int = 16
    generation: str = "hopper"
    host: str = "intel"

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.nodes * self.ranks_per_node


def latency_us(collective: str, algorithm: str, protocol: str, nodes: int, ranks_per_node: int, host: str = "intel") -> float:
    """NCCL's latency term of an algorithm and protocol, without the factor of ``ring_factor``.

    ring: base + (steps - between) x max(NVLink, host overhead on several nodes) + between x NET, where between = 2(nodes-1)
    of the 2(p-1) steps of an all-reduce;
    tree: base + 2 [(ranks per node - 1) NVLink + log2(nodes) NET].
    """
    k = PROTOCOLS.index(protocol)
    ranks = nodes * ranks_per_node
    intra = NVLINK_US[algorithm][k]
    inter = (NET_US["tree"] if ranks_per_node == 1 else NET_US[algorithm])[k]
    if algorithm == "ring":
        overhead = HOST_OVERHEAD_US[host] * (3 if protocol == "Simple" else 1) if nodes > 1 else 0.0
        passes = 2 if collective == "all-reduce" else 1
        steps, between = passes * (ranks - 1), passes * (nodes - 1)
        return BASE_US["ring"][k] + (steps - between) * max(intra, overhead) + between * inter
    if algorithm == "tree":
        return BASE_US["tree"][k] + 2 * ((ranks_per_node - 1) * intra + log2(nodes) * inter)
    return BASE_US["nvls"][k] + intra + (inter if nodes > 1 else 0.0)


def ring_factor(collective: str, algorithm: str, protocol: str, job: Job, bytes_: float) -> float:
    """The plateau of a ring across nodes: latency times 1.4 once each rank has 64 bytes in each channel (from sm80 on)."""
    plateau = (collective, algorithm, protocol) == ("all-reduce", "ring", "Simple") and job.nodes > 1
    return RING_SIMPLE_FACTOR if plateau and bytes_ / (job.channels * job.ranks) >= RING_SIMPLE_BYTES else 1.0


def bandwidth_gb_per_s(collective: str, algorithm: str, protocol: str, job: Job) -> float:
    """Bytes of the message over time, without latency: bus bandwidth with the protocol's limits, divided by what each link carries per byte."""
    limits, size = GENERATIONS[job.generation], min(job.nodes, 3) - 1
    bus = job.intra_gb_per_s if job.nodes == 1 else min(job.intra_gb_per_s, job.inter_gb_per_s)
    if algorithm == "ring":
        if protocol == "LL":
            bus = min(limits.ll[size], bus / 2)
        elif protocol == "LL128":
            bus = min(0.92 * bus, job.channels * limits.ring_ll128[size])
        return bus * job.ranks / ((2 if collective == "all-reduce" else 1) * (job.ranks - 1))
    if algorithm == "tree":
        bus = min(0.92 * bus, job.channels * limits.tree_simple[size])
        if protocol == "LL":
            bus = min(bus / 3.8, limits.ll[size])
        elif protocol == "LL128":
            bus = min(bus * (7 / 9 if job.nodes == 1 else 120 / 128), job.channels * limits.tree_ll128[size])
        return bus / 2
    bus *= limits.nvls_efficiency * (job.channels - 1) / job.channels
    return bus * job.ranks / (job.ranks - 1) if collective == "all-reduce" else bus


def time_us(collective: str, algorithm: str, protocol: str, job: Job, bytes_: float) -> float:
    """NCCL's estimate; infinite for what it would not run."""
    if (algorithm == "tree" and collective != "all-reduce") or (algorithm == "nvls" and (protocol != "Simple" or job.nodes > 1)):
        return inf
    bandwidth = bandwidth_gb_per_s(collective, algorithm, protocol, job)
    if bandwidth <= 0:
        return inf
    step = int(log2(max(bytes_, 64) / 64))
    if algorithm == "tree" and step < len(TREE_CORRECTION[protocol]):
        bandwidth *= TREE_CORRECTION[protocol][step]
    latency = latency_us(collective, algorithm, protocol, job.nodes, job.ranks_per_node, job.host)
    return latency * ring_factor(collective, algorithm, protocol, job, bytes_) + bytes_ / (1000 * bandwidth)
