"""Link profiles as arrays: what a protocol costs per link kind of a fabric."""

from dataclasses import dataclass

import numpy as np

from configuration.errors import ConfigurationError
from fabrics.collectives import IN_SWITCH
from fabrics.network import FloatArray, Network
from fabrics.spec import ByLinkKind, LinkProfile


@dataclass(frozen=True)
class Software:
    """One protocol on one fabric. ``efficiency`` and ``opposing`` are per link; ``overhead_s`` and ``gap_s`` are per mask of link kinds on a path:
    the dearest kind's.
    """

    name: str
    algorithms: tuple[str, ...]
    base_s: float
    overhead_s: FloatArray
    gap_s: FloatArray
    efficiency: FloatArray
    opposing: FloatArray


def software(profile: LinkProfile, network: Network, collective: str) -> list[Software]:
    """The protocols that a link profile offers for a collective. Raises ConfigurationError when a link kind is not covered."""
    where = f"link profile {profile.name}"
    return [
        Software(
            name=name,
            algorithms=protocol.algorithms,
            base_s=protocol.base_s.value,
            overhead_s=_by_mask(_by_kind(network, protocol.overhead_s, f"{where}.{name}.overhead_s")),
            gap_s=_by_mask(_by_kind(network, protocol.gap_s, f"{where}.{name}.gap_s")),
            efficiency=_by_kind(network, protocol.efficiency, f"{where}.{name}.efficiency")[network.kind_index],
            opposing=_by_kind(network, protocol.opposing, f"{where}.{name}.opposing")[network.kind_index],
        )
        for name, protocol in profile.operations.get(collective, profile.protocols).items()
    ]


def serves(protocol: Software, algorithm: str) -> bool:
    """Whether a protocol can run an algorithm."""
    return algorithm in protocol.algorithms if protocol.algorithms else algorithm not in IN_SWITCH


def payload_bytes_per_s(profile: LinkProfile, network: Network, collective: str, protocol: str) -> FloatArray:
    """What each link carries per second under a protocol, with nothing coming the other way."""
    (found,) = [offered for offered in software(profile, network, collective) if offered.name == protocol]
    return network.bytes_per_s * found.efficiency


def _by_kind(network: Network, table: ByLinkKind, field: str) -> FloatArray:
    for kind in network.kinds:
        if kind not in table and "default" not in table:
            raise ConfigurationError(f"{field} has no value for link kind {kind!r}, nor 'default'")
    return np.array([(table.get(kind) or table["default"]).value for kind in network.kinds])


def _by_mask(per_kind: FloatArray) -> FloatArray:
    masks = np.arange(1 << len(per_kind))
    return np.array([max((value for bit, value in enumerate(per_kind.tolist()) if mask >> bit & 1), default=0.0) for mask in masks.tolist()])
