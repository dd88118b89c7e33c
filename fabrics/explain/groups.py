"""Which tier a parallel group uses, by its size and by whether its ranks are neighbours or far apart."""

from fabrics.cost import cost
from fabrics.explain.sections import Rows, Section
from fabrics.explain.walk import LINK_BY_LINK_MOST
from fabrics.graph import Fabric
from fabrics.placement import groups
from fabrics.units import bytes_text, seconds

BYTES = 64e6
SIZES = (2, 4, 8, 16, 32, 64)


def highest_tier(fabric: Fabric, src: int, dst: int) -> str:
    """Kind of the highest switch on the way, "accelerators" in a direct network."""
    links = fabric.routes.path(src, dst, fabric.spec.routing)
    nodes = [fabric.graph.nodes[fabric.links[link][1]] for link in links[:-1]]
    top = max(nodes, key=lambda node: int(node["tier"]), default={"kind": "accelerator"})
    return str(top["kind"])


def section(fabric: Fabric) -> Section:
    """A row per group size and layout; all groups run at once."""
    rows = []
    small = fabric.size <= LINK_BY_LINK_MOST
    for size in SIZES:
        if size > fabric.size or fabric.size % size or size == 1:
            continue
        for strided in (False, True):
            if strided and size == fabric.size:
                continue
            placement = groups(fabric, None, size, strided=strided)
            first = placement[0]
            reach = sorted({1, size // 2, size - 1} if small else {size - 1})
            tier = max((highest_tier(fabric, first[0], first[i]) for i in reach), key=lambda kind: _height(fabric, kind))
            exchange = cost(fabric, "all-to-all", placement, BYTES)
            reduce = cost(fabric, "all-reduce", placement, BYTES)
            layout = "far apart" if strided else "neighbours"
            rows.append((f"{size}", layout, f"{len(placement):,}", tier, seconds(exchange.time_s[0]), exchange.bottleneck[0], seconds(reduce.time_s[0])))
    text = (
        f"A parallel group is as fast as the highest tier that it crosses. All groups of a size run at once, {bytes_text(BYTES)} per rank. Tensor and expert "
        "parallel groups are usually neighbours, data parallel groups are far apart. The groups of a real plan, and the share of its step that each exposes: "
        f"python -m simulator explain network --model MODEL --fabric {fabric.spec.name}."
    )
    headings = ("group size", "ranks", "groups", "highest tier", "all-to-all", "its hottest link", "all-reduce")
    return Section("Which group uses which tier", (text,), (Rows(headings, tuple(rows)),))


def _height(fabric: Fabric, kind: str) -> int:
    return max((int(data["tier"]) for _, data in fabric.graph.nodes(data=True) if data["kind"] == kind), default=0)
