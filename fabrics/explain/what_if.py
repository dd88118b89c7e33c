"""What the all-to-all would take on a changed fabric."""

from collections.abc import Iterator
from typing import Any

from configuration.errors import ConfigurationError
from fabrics.cost import cost
from fabrics.explain.sections import Rows, Section
from fabrics.explain.walk import LINK_BY_LINK_MOST, Walk
from fabrics.graph import Fabric
from fabrics.loading import build
from fabrics.spec import FabricSpec
from fabrics.topologies.clos import Clos
from fabrics.units import seconds

MICROSECOND = 1e-6
RATES = {
    "clos": ("link_bytes_per_s", "scale_up_bytes_per_s"),
    "node": ("link_bytes_per_s",),
    "torus": ("link_bytes_per_s",),
    "dragonfly": ("link_bytes_per_s", "local_bytes_per_s", "global_bytes_per_s"),
}
LATENCIES = ("hop_latency_s", "uplink_latency_s", "core_latency_s", "global_latency_s")


def variants(spec: FabricSpec) -> Iterator[tuple[str, FabricSpec]]:
    """Changed specifications with their names; none for explicit graphs, whose links are written out."""
    if isinstance(spec, Clos) and spec.spines:
        for label, factor in (("spine links halved", 0.5), ("spine links doubled", 2.0)):
            yield label, _with(spec, oversubscription=None, uplink_bytes_per_s=spec.uplink_rate * factor)
        # The uplinks keep their rate while the hosts' ports change.
        yield "host links doubled", _with(spec, link_bytes_per_s=2 * spec.link_bytes_per_s, oversubscription=None, uplink_bytes_per_s=spec.uplink_rate)
    elif spec.kind in RATES:
        for label, factor in (("links halved", 0.5), ("links doubled", 2.0)):
            yield label, _with(spec, **{field: getattr(spec, field) * factor for field in RATES[spec.kind] if getattr(spec, field)})
    given = {field: getattr(spec, field) for field in LATENCIES if getattr(spec, field, None) is not None}
    if given:
        yield "1 µs more per hop", _with(spec, **{field: value + MICROSECOND for field, value in given.items()})


def _with(spec: FabricSpec, **changes: Any) -> FabricSpec:
    if isinstance(spec, Clos) and spec.core_oversubscription is not None and "oversubscription" in changes:
        changes |= {"core_oversubscription": None, "core_link_bytes_per_s": spec.core_rate}
    return spec.model_copy(update=changes)


def changed_fabrics(fabric: Fabric) -> Iterator[tuple[str, Fabric | None]]:
    """Every change with the changed fabric, which keeps the faults that this one has; None where ranks are cut off."""
    for label, spec in variants(fabric.spec):
        changed = build(spec)
        yield label, changed.without(fabric.failed, fabric.slow) if fabric.failed or fabric.slow else changed
    if fabric.size <= LINK_BY_LINK_MOST and "spine0" in fabric.graph:
        try:
            yield "spine0 lost", fabric.without(("spine0",))
        except ConfigurationError:
            yield "spine0 lost", None


def section(fabric: Fabric, walk: Walk) -> Section:
    """The table, the fabric as it is in the first row."""
    title = "What if"
    if len(walk.ranks) < 2:
        return Section(title, ("One rank alone does not communicate.",))
    now = walk.cost(fabric)
    rows = [("as it is", seconds(now.time_s[0]), seconds(now.transfer_s[0]), "1.00", now.bottleneck[0])]

    def add(label: str, changed: Fabric) -> None:
        costs = walk.cost(changed)
        rows.append((label, seconds(costs.time_s[0]), seconds(costs.transfer_s[0]), f"{costs.time_s[0] / now.time_s[0]:.2f}", costs.bottleneck[0]))

    for label, changed in changed_fabrics(fabric):
        if changed is None:
            rows.append((label, "cut off", "", "", ""))
        else:
            add(label, changed)
    width = int((fabric.domains == fabric.domains[0]).sum())
    if 1 < width < len(walk.ranks) and len(walk.ranks) % width == 0:
        groups = [walk.ranks[i : i + width] for i in range(0, len(walk.ranks), width)]
        costs = cost(fabric, "all-to-all", groups, walk.bytes)
        label = f"confined to a node ({width} ranks, same bytes per rank)"
        rows.append((label, seconds(costs.time_s[0]), seconds(costs.transfer_s[0]), f"{costs.time_s[0] / now.time_s[0]:.2f}", costs.bottleneck[0]))
    text = (
        "The same all-to-all on changed fabrics. Rates act on the transfer, hops on the latency; a training step feels as much of it as computation "
        "does not hide: python -m simulator explain network has this table for a step."
    )
    return Section(title, (text,), (Rows(("change", "time", "transfer", "times", "hottest link"), tuple(rows)),))
