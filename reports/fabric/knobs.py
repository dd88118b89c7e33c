"""The parameters that the page turns, of the fabric and of the plan, and the values it turns them to."""

from dataclasses import dataclass

from configuration.overrides import Overrides
from fabrics.explain.tiers import tiers
from fabrics.graph import Fabric
from fabrics.topologies.clos import Clos
from simulator.question import Question

SCALE_UP_BYTES_PER_S = 450e9
"""Rate of the links inside a node where the fabric has none yet: NVLink 4, per direction (NVIDIA H100 data sheet)."""


@dataclass(frozen=True)
class Knob:
    """A field of the fabric or (``of``) of the plan; ``meaning`` in a sentence. Shown values are ``scale`` times the field's.

    ``whole``: only whole numbers make sense. ``more_is_worse``: which way it hurts. ``monotone``: it never helps on its way.
    """

    field: str
    label: str
    unit: str
    scale: float
    values: tuple[float, ...]
    meaning: str
    whole: bool = False
    more_is_worse: bool = True
    monotone: bool = True
    of: str = "fabric"

    @property
    def axis(self) -> str:
        """Label of an axis."""
        return f"{self.label} ({self.unit})"

    def show(self, value: float) -> str:
        """A value of the field with its unit."""
        shown = f"{value * self.scale:.3g}" if value * self.scale < 1000 else f"{value * self.scale:.0f}"
        if self.whole:
            return shown
        return f"{shown}{self.unit}" if self.unit.startswith(":") else f"{shown} {self.unit}"

    def now(self, question: Question) -> float | None:
        """What the question has; None where it does not apply."""
        fabric = question.network.fabric
        if self.field == "ep":
            return float(question.plan.ep) if question.model.expert_counts else None
        given = getattr(question.plan if self.of == "plan" else fabric.spec, self.field, None)
        if given is None and self.field == "oversubscription":
            return next((tier.oversubscription for tier in tiers(fabric) if tier.kind == "leaf"), None)
        return None if given is None else float(given)

    def change(self, fabric: Fabric, value: float) -> Overrides:
        """The fields that a value changes."""
        setting = round(value) if self.whole else value
        if self.field == "accelerators_per_node" and isinstance(fabric.spec, Clos):
            return {"fabric": _nodes_of(fabric.spec, round(value))}
        return {self.of: {self.field: setting}}


def _nodes_of(spec: Clos, accelerators: int) -> dict[str, float | int]:
    """Nodes of so many accelerators, as many accelerators as before on each leaf."""
    below = spec.hosts_per_leaf * spec.accelerators_per_node
    hosts, rest = divmod(below, accelerators)
    if rest:
        return {"accelerators_per_node": accelerators, "hosts_per_leaf": 0}
    return {"accelerators_per_node": accelerators, "hosts_per_leaf": hosts, "scale_up_bytes_per_s": spec.scale_up_bytes_per_s or SCALE_UP_BYTES_PER_S}


OVERSUBSCRIPTION = Knob(
    "oversubscription", "leaf oversubscription", ":1", 1.0, (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0),
    "A leaf's bandwidth towards its hosts over its bandwidth towards the spines; at 1:1 everything below can leave at full rate.",
)  # fmt: skip
LATENCY = Knob(
    "hop_latency_s", "latency per link", "µs", 1e6, (1e-7, 2e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4),
    "What a link and the switch behind it add to the way of every message; the software's overhead stays as it is.",
)  # fmt: skip
RATE = Knob(
    "link_bytes_per_s", "link rate", "GB/s", 1e-9, (6.25e9, 12.5e9, 25e9, 50e9, 100e9, 200e9, 400e9),
    "Bytes per second and direction of a host's link. Unless the fabric's file sets them apart, uplinks change alike and the oversubscription stays.",
    more_is_worse=False,
)  # fmt: skip
SPINES = Knob(
    "spines", "spines", "count", 1.0, (1, 2, 4, 8),
    "Switches that join the leaves. At an unchanged link rate more of them add capacity between leaves, until the hosts' links are what is full.",
    whole=True, more_is_worse=False,
)  # fmt: skip
NODE = Knob(
    "accelerators_per_node", "accelerators per node", "count", 1.0, (1, 2, 4, 8, 16),
    "Accelerators that NVLink joins; each keeps its own network link, and a leaf keeps as many accelerators below it.",
    whole=True, more_is_worse=False,
)  # fmt: skip
EXPERTS = Knob(
    "ep", "expert-parallel degree", "ranks", 1.0, (1, 2, 4, 8, 16, 32, 64, 128),
    "Ranks that share the experts of a layer: more of them exchange more tokens over a longer way, fewer hold more experts and average more gradients.",
    whole=True, monotone=False, of="plan",
)  # fmt: skip
SEQUENCE = Knob(
    "sequence", "sequence length", "tokens", 1.0, (64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "Tokens of one sequence: how much work lies between two messages.",
    whole=True, more_is_worse=False, of="plan",
)  # fmt: skip

KNOBS = (OVERSUBSCRIPTION, LATENCY, RATE, SPINES, NODE, EXPERTS)
"""Turned one at a time."""
