"""The parameters of a fabric that the page turns, and the values it turns them to."""

from dataclasses import dataclass

from fabrics.explain.tiers import tiers
from fabrics.graph import Fabric


@dataclass(frozen=True)
class Knob:
    """A field of the fabric; ``meaning`` in a sentence. Shown values are ``scale`` times the field's.

    ``whole``: only whole numbers make sense. ``more_is_worse``: which way it hurts.
    """

    field: str
    label: str
    unit: str
    scale: float
    values: tuple[float, ...]
    meaning: str
    whole: bool = False
    more_is_worse: bool = True

    @property
    def axis(self) -> str:
        """Label of an axis."""
        return f"{self.label} ({self.unit})"

    def show(self, value: float) -> str:
        """A value of the field with its unit."""
        shown = f"{value * self.scale:.3g}"
        if self.whole:
            return shown
        return f"{shown}{self.unit}" if self.unit.startswith(":") else f"{shown} {self.unit}"

    def setting(self, value: float) -> float | int:
        """A value as the specification takes it."""
        return round(value) if self.whole else value

    def now(self, fabric: Fabric) -> float | None:
        """What the fabric has; None where it does not apply."""
        given = getattr(fabric.spec, self.field, None)
        if given is None and self.field == "oversubscription":
            return next((tier.oversubscription for tier in tiers(fabric) if tier.kind == "leaf"), None)
        return None if given is None else float(given)


KNOBS = (
    Knob(
        "oversubscription", "leaf oversubscription", ":1", 1.0, (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0),
        "A leaf's bandwidth towards its hosts over its bandwidth towards the spines; at 1:1 everything below can leave at full rate.",
    ),
    Knob(
        "hop_latency_s", "latency per link", "µs", 1e6, (1e-7, 2e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4),
        "What a link and the switch behind it add to the way of every message; the software's overhead stays as it is.",
    ),
    Knob(
        "link_bytes_per_s", "link rate", "GB/s", 1e-9, (6.25e9, 12.5e9, 25e9, 50e9, 100e9, 200e9, 400e9),
        "Bytes per second and direction of a host's link. Unless the fabric's file sets them apart, uplinks change alike and the oversubscription stays.",
        more_is_worse=False,
    ),
    Knob(
        "spines", "spines", "count", 1.0, (1, 2, 4, 8),
        "Switches that join the leaves. At an unchanged link rate more of them add capacity between leaves, until the hosts' links are what is full.",
        whole=True, more_is_worse=False,
    ),
)  # fmt: skip
