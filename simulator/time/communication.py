"""Which ranks talk, over what, and what it costs on the fabric.

Ranks lie on the fabric's endpoints in order. Neighbouring ``ep`` ranks share the experts of a layer; ranks at the same place of
these groups hold the same experts.
"""

from dataclasses import dataclass, field

from fabrics.cost import PriceList, price
from fabrics.graph import Fabric
from simulator.specs import Plan

EXPERT, DATA, EXPERT_DATA = "expert", "data", "expert_data"


@dataclass
class Network:
    """Price lists of the groups of a plan on a fabric, asked for when first needed."""

    fabric: Fabric
    plan: Plan
    _lists: dict[tuple[str, str], PriceList] = field(default_factory=dict)

    def groups(self, name: str) -> list[tuple[int, ...]]:
        """The groups of ranks that run a collective of this name at the same time."""
        ranks, ep = self.plan.ranks, self.plan.ep
        if name == EXPERT:
            return [tuple(range(start, start + ep)) for start in range(0, ranks, ep)]
        if name == EXPERT_DATA:
            return [tuple(range(place, ranks, ep)) for place in range(ep)]
        return [tuple(range(ranks))]

    def prices(self, collective: str, group: str) -> PriceList:
        """Time as a function of bytes."""
        key = (collective, group)
        if key not in self._lists:
            self._lists[key] = price(self.fabric, collective, self.groups(group))
        return self._lists[key]

    def seconds(self, collective: str, group: str, size_bytes: float) -> float:
        """Seconds of one collective; 0 for a group of one."""
        return 0.0 if len(self.groups(group)[0]) == 1 else self.prices(collective, group).time_s(size_bytes)
