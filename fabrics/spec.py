"""What every fabric file states, whatever its topology: name, device, link profile, routing."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from configuration.spec import Spec

BYTES_PER_S_LEAST = 1e5


def bytes_per_s(value: float) -> float:
    """Check a link rate. Raises ValueError when it is not positive or so small that it must be in another unit."""
    if value <= 0:
        raise ValueError("a link rate must be greater than 0 bytes per second")
    if value < BYTES_PER_S_LEAST:
        raise ValueError(f"the unit is bytes per second: {value:g} Gb/s would be {value * 1e9 / 8:g}, {value:g} GB/s would be {value * 1e9:g}")
    return value


def latency_s(value: float) -> float:
    """Check a latency. Raises ValueError when it is negative or so large that it must be in another unit."""
    if value < 0:
        raise ValueError("a latency must not be negative")
    if value >= 1:
        raise ValueError(f"the unit is seconds: {value:g} ns would be {value * 1e-9:g}, {value:g} us would be {value * 1e-6:g}")
    return value


class Constant(Spec):
    """A number and where it comes from; a fitted one with its standard error where the rows carry one."""

    value: Annotated[float, Field(ge=0)]
    source: Literal["spec", "fitted", "assumed"]
    standard_error: Annotated[float, Field(ge=0)] | None = None
    cite: str = ""

    @model_validator(mode="after")
    def _cited(self) -> Self:
        if self.source != "assumed" and not self.cite:
            raise ValueError(f"a constant with source {self.source!r} needs 'cite': the data sheet or the measurements")
        return self


ByLinkKind = dict[str, Constant]
"""Link kind ("nvlink", "network", ...) to constant; the key "default" serves the kinds that are not named."""


class Protocol(Spec):
    """How messages are sent: what one costs in software and what share of a link's rate is payload.

    ``base_s``: once per collective. ``overhead_s``: per step that has to wait for the step before it. ``gap_s``: per message that one
    rank sends without waiting (LogGP's g). A message pays the dearest link kind on its path. ``efficiency``: payload over link rate
    in one direction alone. ``opposing``: share of the bytes coming the other way that a link is busy with as well (0: full duplex, 1: both
    directions share one medium).
    ``algorithms``: the only algorithms that it serves (such as nvls); empty: all that need no sums in switches.
    """

    algorithms: tuple[str, ...] = ()
    base_s: Constant = Constant(value=0, source="assumed")
    overhead_s: ByLinkKind
    gap_s: ByLinkKind
    efficiency: ByLinkKind
    opposing: ByLinkKind = Field(default_factory=lambda: {"default": Constant(value=0, source="assumed", cite="full duplex")})

    @model_validator(mode="after")
    def _efficient(self) -> Self:
        for kind, constant in self.efficiency.items():
            if not 0 < constant.value <= 1:
                raise ValueError(f"efficiency.{kind}: must be over 0 and at most 1, got {constant.value:g}")
        for kind, constant in self.opposing.items():
            if constant.value > 1:
                raise ValueError(f"opposing.{kind}: must be at most 1, got {constant.value:g}")
        return self


class LinkProfile(Spec):
    """Software on the links: named protocols, of which the quickest for a size is taken; ``operations`` overrides them per collective."""

    name: str
    protocols: dict[str, Protocol]
    operations: dict[str, dict[str, Protocol]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.protocols or any(not protocols for protocols in self.operations.values()):
            raise ValueError("protocols: at least one is needed")
        return self


class Routing(Spec):
    """How a flow picks among equal-cost paths.

    ``ideal``: each switch spreads it evenly over them. ``ecmp``: each of ``flows_per_pair`` equal subflows is hashed to one of them, with ``seed``.
    ``static``: path number (source + destination) modulo their count.
    """

    mode: Literal["ideal", "ecmp", "static"] = "ideal"
    seed: Annotated[int, Field(ge=0)] = 0
    flows_per_pair: Annotated[int, Field(ge=1, le=1024)] = 1


class FabricSpec(Spec):
    """Base of all fabric files; each topology adds its own fields and its ``kind``."""

    kind: str
    name: str
    device: str
    about: str = ""
    link_profile: LinkProfile
    routing: Routing = Routing()
    sources: dict[str, str] = Field(default_factory=dict)

    @field_validator("routing", mode="before")
    @classmethod
    def _named_routing(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value
