"""One all-to-all walked through: who sends what, which link is hottest, latency against transfer, the knee."""

from dataclasses import dataclass
from typing import Any

from fabrics.bounds import ENDPOINTS_MOST, lower_bound
from fabrics.cost import CollectiveCost, cost, groups_of
from fabrics.explain.sections import Rows, Section
from fabrics.graph import Fabric
from fabrics.placement import groups
from fabrics.profiles import payload_bytes_per_s
from fabrics.question import hot_links
from fabrics.units import bytes_text, rate, seconds

RANKS_MOST = 64
LINK_BY_LINK_MOST = 4096
"""Endpoints up to which an explanation looks at every link."""


@dataclass(frozen=True)
class Walk:
    """The all-to-all that the explanation walks through: one group of ranks, bytes per pair."""

    ranks: tuple[int, ...]
    bytes_per_pair: float

    @property
    def bytes(self) -> float:
        """What a rank sends in total, its own part included."""
        return self.bytes_per_pair * len(self.ranks)

    def cost(self, fabric: Fabric) -> CollectiveCost:
        """Its price on a fabric."""
        return cost(fabric, "all-to-all", [self.ranks], self.bytes)


def walk_over(fabric: Fabric, ranks: int | None, bytes_per_pair: float) -> Walk:
    """The all-to-all of the first ``ranks`` endpoints (all, but at most 64, when None). Raises ConfigurationError when there are fewer."""
    (group,) = groups(fabric, min(fabric.size, RANKS_MOST) if ranks is None else ranks, None)
    return Walk(group, bytes_per_pair)


def section(fabric: Fabric, walk: Walk) -> Section:
    """The all-to-all in words and tables."""
    p = len(walk.ranks)
    title = "One all-to-all, walked through"
    if p < 2:
        return Section(title, ("One rank alone sends nothing: an all-to-all costs 0.",))
    costs = walk.cost(fabric)
    line = costs.lines[0]
    if line is None:
        return Section(title, ("Nothing is sent.",))
    hottest = hot_links(costs)
    first = hottest[0]
    carried = first["bytes"]
    payload = carried / costs.transfer_s[0]
    knee = line.latency_s / line.s_per_byte / p
    paragraphs = [
        f"{p} ranks each send {bytes_text(walk.bytes_per_pair)} to each of the {p - 1} others, {bytes_text(walk.bytes_per_pair * p * (p - 1))} in all "
        f"({line.algorithm}, protocol {line.protocol}).",
        f"The hottest link is {line.bottleneck}: {bytes_text(carried)} cross it, or {carried / walk.bytes_per_pair:.4g} of the {p * (p - 1)} messages. "
        f"Of its {rate(first['bytes_per_s'])}, {rate(payload)} are payload, so it is busy for {seconds(costs.transfer_s[0])}: that is the transfer time. "
        f"Each rank sends {rate(walk.bytes_per_pair * (p - 1) / costs.transfer_s[0])} meanwhile: its all-to-all bandwidth.",
        f"Before the first byte arrives, software and wires take {seconds(costs.latency_s[0])}. Together {seconds(costs.time_s[0])}. "
        f"Latency and transfer are equal at {bytes_text(knee)} per pair (the knee): under it latency rules, over it bandwidth.",
    ]
    data: dict[str, Any] = {"time_s": float(costs.time_s[0]), "transfer_s": float(costs.transfer_s[0]), "bottleneck": line.bottleneck}
    if fabric.size <= ENDPOINTS_MOST:
        rates = payload_bytes_per_s(fabric.spec.link_profile, fabric, "all-to-all", line.protocol)
        bound = lower_bound(fabric, "all-to-all", groups_of(fabric, [walk.ranks]), walk.bytes, rates)
        data["lower_bound_s"] = bound.transfer_s
        paragraphs.append(
            f"No routing could need less than {seconds(bound.transfer_s)} for the transfer ({bound.method}); this routing needs "
            f"{costs.transfer_s[0] / bound.transfer_s:.3f} times that."
        )
    rows = tuple((link["link"], bytes_text(link["bytes"]), rate(link["bytes_per_s"]), f"{link['busy_share']:.0%}") for link in hottest)
    return Section(title, tuple(paragraphs), (Rows(("link", "bytes", "rate", "busy"), rows),), picture="knee", data=data)
