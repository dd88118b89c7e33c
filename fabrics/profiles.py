"""Link profiles as arrays: what a protocol costs per link kind of a fabric."""

from dataclasses import dataclass

import numpy as np

from configuration.errors import ConfigurationError
from fabrics.graph import Fabric, FloatArray
from fabrics.spec import ByLinkKind


@dataclass(frozen=True)
class Software:
    """One protocol on one fabric. ``efficiency`` is per link; ``overhead_s`` and ``gap_s`` are per mask of link kinds on a path: the dearest kind's."""

    name: str
    base_s: float
    overhead_s: FloatArray
    gap_s: FloatArray
    efficiency: FloatArray


def software(fabric: Fabric, collective: str) -> list[Software]:
    """The protocols that the fabric's link profile offers for a collective. Raises ConfigurationError when a link kind is not covered."""
    profile = fabric.spec.link_profile
    return [
        Software(
            name=name,
            base_s=protocol.base_s.value,
            overhead_s=_by_mask(_by_kind(fabric, protocol.overhead_s, f"{name}.overhead_s")),
            gap_s=_by_mask(_by_kind(fabric, protocol.gap_s, f"{name}.gap_s")),
            efficiency=_by_kind(fabric, protocol.efficiency, f"{name}.efficiency")[fabric.kind_index],
        )
        for name, protocol in profile.operations.get(collective, profile.protocols).items()
    ]


def _by_kind(fabric: Fabric, table: ByLinkKind, field: str) -> FloatArray:
    for kind in fabric.kinds:
        if kind not in table and "default" not in table:
            raise ConfigurationError(f"link profile {fabric.spec.link_profile.name}: {field} has no value for link kind {kind!r}, nor 'default'")
    return np.array([(table.get(kind) or table["default"]).value for kind in fabric.kinds])


def _by_mask(per_kind: FloatArray) -> FloatArray:
    masks = np.arange(1 << len(per_kind))
    return np.array([max((value for bit, value in enumerate(per_kind.tolist()) if mask >> bit & 1), default=0.0) for mask in masks.tolist()])
