"""NCCL's choice of algorithm and protocol for a group on a fabric: its tuning model fed with what the graph offers."""

from collections import Counter

from fabrics import nccl
from fabrics.collectives.schedule import Group
from fabrics.graph import SCALE_UP_KINDS, Fabric
from fabrics.spec import Protocol

TUNED = ("all-reduce", "all-gather", "reduce-scatter")
"""The collectives that NCCL has a tuning entry for; point-to-point and all-to-all are plain sends."""


def job(fabric: Fabric, group: Group) -> nccl.Job:
    """The group as NCCL's tuning model sees it, at the rates that the link profile's Simple protocol reaches."""
    profile = fabric.spec.link_profile
    simple = profile.protocols.get("Simple") or next(iter(profile.protocols.values()))
    ranks_of_node = Counter(group.domains.tolist())
    first = fabric.endpoints[int(group.ranks[0])]
    inside, outside = 0.0, 0.0
    for _, _, data in fabric.graph.out_edges(first, data=True):
        rate = data["bytes_per_s"] * _efficiency(simple, data["kind"]) / 1e9
        if data["kind"] in SCALE_UP_KINDS:
            inside += rate
        else:
            outside += rate
    per_node = max(ranks_of_node.values())
    generation = next((name for name in nccl.GENERATIONS if name in profile.name), "hopper")
    inter = outside * per_node
    return nccl.Job(len(ranks_of_node), per_node, inside or inter, inter, generation=generation)


def chosen(fabric: Fabric, collective: str, group: Group, candidates: list[tuple[str, str]], sizes: list[float]) -> list[int]:
    """For each size the index of the (algorithm, protocol) that NCCL would take; NVLS runs as its Simple protocol."""
    seen = job(fabric, group)
    named = [(algorithm, "Simple" if algorithm == "nvls" else protocol) for algorithm, protocol in candidates]
    return [
        min(range(len(candidates)), key=[nccl.time_us(collective, algorithm, protocol, seen, size) for algorithm, protocol in named].__getitem__)
        for size in sizes
    ]


def _efficiency(protocol: Protocol, kind: str) -> float:
    found = protocol.efficiency.get(kind) or protocol.efficiency.get("default")
    return found.value if found else 1.0
