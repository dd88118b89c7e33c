"""Which ranks talk, over what, and what it costs on the fabric.

Ranks lie on the fabric's endpoints in order; ``simulator/program/rewrites/layout.py`` says which of them make a group.
"""

from dataclasses import dataclass, field

from fabrics.cost import PriceList, price
from fabrics.graph import Fabric
from simulator.program.operations import Exchange, Toward
from simulator.program.rewrites import layout
from simulator.program.sizes import Bindings
from simulator.specs import ExpertLoad, Plan


@dataclass(frozen=True)
class Call:
    """A collective and the groups that run it. Rows that go ``toward`` experts or home spread as the load has it for so many ``experts`` and ``top_k``."""

    collective: str
    group: str
    toward: Toward = Toward.ALL
    experts: int = 0
    top_k: int = 0


@dataclass
class Network:
    """Price lists of the groups of a plan on a fabric under an expert load, asked for when first needed."""

    fabric: Fabric
    plan: Plan
    load: ExpertLoad = field(default_factory=ExpertLoad)
    _lists: dict[Call, PriceList] = field(default_factory=dict)
    _alike: dict[tuple[str, tuple[tuple[int, ...], ...]], PriceList] = field(default_factory=dict)
    _groups: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def on(self, fabric: Fabric) -> "Network":
        """The same plan and load on another fabric."""
        return Network(fabric, self.plan, self.load)

    def under(self, plan: Plan) -> "Network":
        """The same fabric and load under another plan."""
        return Network(self.fabric, plan, self.load)

    def groups(self, name: str) -> list[tuple[int, ...]]:
        """The groups of ranks that run a collective of this name at the same time."""
        if name not in self._groups:
            self._groups[name] = layout.groups(self.plan, name)
        return self._groups[name]

    def call(self, exchange: Exchange, bindings: Bindings) -> Call:
        """The call behind an exchange of the program; under a uniform load all are even, and where a capacity gives every expert the same rows."""
        if exchange.toward is Toward.ALL or self.load.kind == "uniform" or bindings["M"]:
            return Call(exchange.collective, exchange.group)
        return Call(exchange.collective, exchange.group, exchange.toward, int(bindings["E"]), int(bindings["K"]))

    def calls(self, collective: str, group: str) -> list[Call]:
        """The calls of a collective in groups of a name that were priced so far."""
        return [call for call in self._lists if (call.collective, call.group) == (collective, group)]

    def prices(self, call: Call) -> PriceList:
        """Time as a function of bytes."""
        if call not in self._lists:
            self._lists[call] = self._price(call)
        return self._lists[call]

    def _price(self, call: Call) -> PriceList:
        groups = self.groups(call.group)
        if call.toward is Toward.ALL:
            # Groups of several names may be of the same ranks.
            key = call.collective, tuple(groups)
            if key not in self._alike:
                self._alike[key] = price(self.fabric, call.collective, groups)
            return self._alike[key]
        import numpy as np

        # Row i, column j: share of rank i's own rows that the experts of rank j get; each slice of an expert gets a copy of them.
        slices, ranks = self.plan.etp, self.plan.ep * self.plan.etp
        to_experts = np.tile(np.repeat(self.load.rank_shares(call.experts, call.top_k, self.plan.ep) / slices, slices), (ranks, 1))
        return price(self.fabric, call.collective, groups, matrix=to_experts if call.toward is Toward.EXPERTS else to_experts.T)

    def seconds(self, call: Call, size_bytes: float) -> float:
        """Seconds of one collective; 0 for a group of one."""
        return 0.0 if len(self.groups(call.group)[0]) == 1 else self.prices(call).time_s(size_bytes)
