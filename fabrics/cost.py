"""What a collective costs on a fabric: time, its latency and transfer parts, the hottest link.

A phase lasts software overhead + wire latency + transfer. Links are shared max-min fairly, a flow's weight being its size: the flows through the
hottest link end last and together, so a phase's transfer is that link's bytes over its rate. (For equal flows this is plain max-min sharing, with
rates shared anew at every completion: what remains never falls under the fair share of the first bottleneck.)
Everything is linear in bytes for one algorithm and protocol; a price list is the least of such lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from configuration.errors import ConfigurationError, unknown
from fabrics import nccl
from fabrics.choice import TUNED, chosen
from fabrics.collectives import COLLECTIVES
from fabrics.collectives.schedule import Group, Schedule
from fabrics.graph import Fabric
from fabrics.network import FloatArray, Network
from fabrics.profiles import Software, serves, software
from fabrics.spec import Routing
from fabrics.together import Alike, alike, together

Placement = Sequence[Sequence[int]]
"""Groups that run the collective at the same time: each the ranks (indices of the fabric's endpoints) in order."""


@dataclass(frozen=True, eq=False)
class Line:
    """One way to run the collective: ``latency_s + s_per_byte * bytes``. Per link of ``network``: ``link_share``, what it carries over the size asked for;
    ``busy_s_per_byte``, how long it is busy.
    """

    algorithm: str
    protocol: str
    latency_s: float
    s_per_byte: float
    bottleneck: str
    network: Network
    link_share: FloatArray
    busy_s_per_byte: FloatArray


@dataclass(frozen=True, eq=False)
class CollectiveCost:
    """Cost for each of ``sizes_bytes`` (arrays of that length). ``algorithm`` is empty where nothing is sent."""

    sizes_bytes: FloatArray
    time_s: FloatArray
    latency_s: FloatArray
    transfer_s: FloatArray
    lines: tuple[Line | None, ...]

    @property
    def algorithm(self) -> tuple[str, ...]:
        """Algorithm taken for each size."""
        return tuple(line.algorithm if line else "" for line in self.lines)

    @property
    def protocol(self) -> tuple[str, ...]:
        """Protocol of the link profile taken for each size."""
        return tuple(line.protocol if line else "" for line in self.lines)

    @property
    def bottleneck(self) -> tuple[str, ...]:
        """Name of the hottest link for each size, such as "leaf0->spine1"."""
        return tuple(line.bottleneck if line else "" for line in self.lines)

    def link_bytes(self, index: int = -1) -> FloatArray:
        """Bytes over each link of the fabric of ``lines[index].network`` for one of the sizes."""
        line = self.lines[index]
        return line.link_share * self.sizes_bytes[index] if line else np.zeros(0)

    def busy_share(self, index: int = -1) -> FloatArray:
        """Share of the transfer time that each link is busy for one of the sizes."""
        line = self.lines[index]
        return line.busy_s_per_byte / line.s_per_byte if line else np.zeros(0)

    def busy_by_tier(self, index: int = -1) -> dict[str, float]:
        """For each tier that the collective uses, what share of the transfer its busiest link is busy; the tier is the switch that a link leads up to."""
        line = self.lines[index]
        if line is None:
            return {}
        found: dict[str, float] = {}
        for link, share in enumerate(self.busy_share(index).tolist()):
            if share:
                tier = line.network.link_tier(link)
                found[tier] = max(found.get(tier, 0.0), share)
        return found


class PriceList:
    """Cost of one collective on one placement as a function of bytes: piecewise linear."""

    def __init__(self, lines: Sequence[Line], choose: Callable[[list[float]], list[int]] | None = None) -> None:
        """``choose`` gives the index of the line taken for each size; the quickest when None."""
        self.lines = tuple(lines)
        self._choose = choose
        self._latency_s = np.array([line.latency_s for line in lines])
        self._s_per_byte = np.array([line.s_per_byte for line in lines])

    def time_s(self, bytes_: float) -> float:
        """Time for one size."""
        if self._choose is not None:
            return float(self.cost(bytes_).time_s[0])
        return min((line.latency_s + line.s_per_byte * bytes_ for line in self.lines), default=0.0) if bytes_ > 0 else 0.0

    def cost(self, sizes_bytes: ArrayLike) -> CollectiveCost:
        """Cost of each size; nothing sent costs nothing."""
        sizes = np.atleast_1d(np.asarray(sizes_bytes, dtype=np.float64))
        if not self.lines:
            nothing = np.zeros_like(sizes)
            return CollectiveCost(sizes, nothing, nothing, nothing, (None,) * len(sizes))
        times = self._latency_s[:, None] + self._s_per_byte[:, None] * sizes
        best = times.argmin(axis=0) if self._choose is None else np.array(self._choose(sizes.tolist()))
        latency_s, s_per_byte = self._latency_s[best] * (sizes > 0), self._s_per_byte[best]
        transfer_s = s_per_byte * sizes
        chosen = tuple(self.lines[i] if size > 0 else None for i, size in zip(best.tolist(), sizes.tolist(), strict=True))
        return CollectiveCost(sizes, latency_s + transfer_s, latency_s, transfer_s, chosen)


def cost(
    fabric: Fabric,
    collective: str,
    placement: Placement,
    sizes_bytes: ArrayLike,
    *,
    matrix: ArrayLike | None = None,
    algorithm: str = "auto",
    routing: Routing | None = None,
) -> CollectiveCost:
    """Cost of a collective that all groups of ``placement`` run at once, sharing the links that they share; the slowest group counts.

    Args:
        fabric: the network.
        collective: a name of ``COLLECTIVES``: all-reduce, all-gather, reduce-scatter, all-to-all, broadcast, point-to-point.
        placement: groups of ranks. A group of one rank costs exactly 0.
        sizes_bytes: one or more sizes. all-reduce: the buffer of a rank; all-gather: the full result; reduce-scatter: a rank's full input;
            all-to-all: what a rank sends in total, its part to itself included; broadcast: the buffer; point-to-point: the message.
        matrix: all-to-all only: ``matrix[i, j]`` times the size goes from member i to member j of every group (instead of 1/p);
            with ``sizes_bytes=1`` it holds bytes.
        algorithm: a name of ``COLLECTIVES[collective]``, "auto": the quickest for each size, or "nccl":
            what NCCL's tuning model would take.
        routing: instead of the fabric's own.

    Raises:
        ConfigurationError: unknown names, ranks that the fabric does not have, negative sizes.
    """
    sizes = np.atleast_1d(np.asarray(sizes_bytes, dtype=np.float64))
    if not np.all(np.isfinite(sizes)) or np.any(sizes < 0):
        raise ConfigurationError(f"sizes_bytes: must be finite and not negative, got {sizes.min():g}")
    return price(fabric, collective, placement, matrix=matrix, algorithm=algorithm, routing=routing).cost(sizes)


def price(
    fabric: Fabric, collective: str, placement: Placement, *, matrix: ArrayLike | None = None, algorithm: str = "auto", routing: Routing | None = None
) -> PriceList:
    """The price list behind ``cost``: ask once, evaluate often. Kept on the fabric unless a matrix is given."""
    groups = tuple(group if isinstance(group, tuple) else tuple(group) for group in placement)
    routing = routing or fabric.spec.routing
    if matrix is not None:
        return _price(fabric, collective, groups, algorithm, routing, np.asarray(matrix, dtype=np.float64))
    key = (collective, groups, algorithm, routing)
    if key not in fabric.cache:
        fabric.cache[key] = _price(fabric, collective, groups, algorithm, routing, None)
    found: PriceList = fabric.cache[key]
    return found


def _price(fabric: Fabric, collective: str, placement: tuple[tuple[int, ...], ...], algorithm: str, routing: Routing, matrix: FloatArray | None) -> PriceList:
    if collective not in COLLECTIVES:
        raise unknown("collective", collective, COLLECTIVES)
    algorithms = COLLECTIVES[collective]
    if algorithm not in ("auto", "nccl", *algorithms):
        raise unknown(f"algorithm of {collective}", algorithm, ["auto", "nccl", *algorithms])
    if matrix is not None and collective != "all-to-all":
        raise ConfigurationError(f"{collective}: a matrix of shares is for all-to-all")
    groups = groups_of(fabric, placement)
    batches = alike(groups)
    network = fabric.network(routing)
    protocols = software(fabric.spec.link_profile, network, collective)
    lines: list[Line] = []
    for name in algorithms if algorithm in ("auto", "nccl") else [algorithm]:
        usable = [protocol for protocol in protocols if serves(protocol, name)]
        schedules = [_schedule(algorithms[name], batch, matrix) for batch in batches] if usable else [None]
        possible = [schedule for schedule in schedules if schedule is not None]
        if len(possible) == len(schedules):
            lines += _lines(network, name, list(zip(batches, possible, strict=True)), usable, routing)
        elif algorithm not in ("auto", "nccl"):
            raise ConfigurationError(f"algorithm {name}: {collective} cannot run it on this placement with link profile {fabric.spec.link_profile.name}")
    if algorithm == "nccl" and collective in TUNED and lines:
        known = [line for line in lines if line.algorithm in nccl.BASE_US and (line.protocol in nccl.PROTOCOLS or line.algorithm == "nvls")]
        if not known:
            raise ConfigurationError(f"algorithm nccl: link profile {fabric.spec.link_profile.name} has none of NCCL's protocols {', '.join(nccl.PROTOCOLS)}")
        return PriceList(known, partial(chosen, fabric, collective, groups[0], [(line.algorithm, line.protocol) for line in known]))
    return PriceList(lines)


def groups_of(fabric: Fabric, placement: Placement) -> list[Group]:
    """The groups that send anything. Raises ConfigurationError for ranks that the fabric does not have or that a group names twice."""
    for group in placement:
        if not group:
            raise ConfigurationError("placement: a group has no ranks")
        if max(group) >= fabric.size or min(group) < 0:
            wrong = max(group) if max(group) >= fabric.size else min(group)
            raise ConfigurationError(f"placement: no rank {wrong} on fabric {fabric.spec.name}: it has {fabric.size} endpoints (0 to {fabric.size - 1})")
        if len(set(group)) != len(group):
            raise ConfigurationError("placement: a rank is twice in one group")
    return [Group(ranks, fabric.domains[ranks]) for ranks in map(np.array, placement) if len(ranks) > 1]


def _shares(matrix: FloatArray, p: int) -> FloatArray:
    if matrix.shape != (p, p) or not np.all(np.isfinite(matrix)) or np.any(matrix < 0):
        raise ConfigurationError(f"matrix: expected {p} x {p} finite numbers that are not negative, got shape {matrix.shape}")
    return matrix


def _schedule(algorithm: Callable[..., Schedule | None], batch: Alike, matrix: FloatArray | None) -> Schedule | None:
    stencil = batch.stencil()
    return algorithm(stencil) if matrix is None else algorithm(stencil, _shares(matrix, stencil.size))


def _busy_s(network: Network, protocol: Software, load: FloatArray) -> FloatArray:
    """Seconds that each link is busy with its load, and with its share of what comes the other way."""
    both = load + protocol.opposing * np.where(network.opposite == np.arange(len(load)), 0.0, load[network.opposite]) if protocol.opposing.any() else load
    return np.asarray(both / (network.bytes_per_s * protocol.efficiency))


def _lines(network: Network, algorithm: str, batches: list[tuple[Alike, Schedule]], protocols: list[Software], routing: Routing) -> list[Line]:
    """One line per protocol for all groups, phase by phase."""
    phases = together(batches)
    if not phases:
        return []
    loads = [network.loads(flows.src, flows.dst, flows.share, routing) for flows in phases]
    paths = [network.latencies(flows.src, flows.dst) for flows in phases]
    lines = []
    for protocol in protocols:
        times = [_busy_s(network, protocol, load) for load in loads]
        latency_s = [np.zeros(len(batch.ranks)) for batch, _ in batches]
        for flows, (wire_s, mask) in zip(phases, paths, strict=True):
            flows.add_latency(latency_s, wire_s, protocol.overhead_s[mask], protocol.gap_s[mask])
        longest = max(range(len(phases)), key=lambda i: float(times[i].max()))
        lines.append(
            Line(
                algorithm=algorithm,
                protocol=protocol.name,
                latency_s=protocol.base_s + max(float(total.max()) for total in latency_s),
                s_per_byte=float(sum(time.max() for time in times)),
                bottleneck=network.link_name(int(times[longest].argmax())),
                network=network,
                link_share=np.sum(loads, axis=0),
                busy_s_per_byte=np.sum(times, axis=0),
            )
        )
    return lines
