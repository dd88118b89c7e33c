"""Namespaces, virtual cables and equal-cost routes of a fabric; Linux, as root, with iproute2.

A node is a namespace, a link a pair of virtual interfaces whose two ends are shaped by a token bucket; switches route by a hash over addresses and ports, as
ECMP does. Everything vanishes with its namespaces.
"""

import os
import shutil
import subprocess
from types import TracebackType
from typing import Self

from configuration.errors import ConfigurationError
from fabrics.graph import Fabric

NODES_MOST = 64
BURST_BYTES = 16_000
QUEUE_MS = 400
"""Long enough that the first bursts of many connections are not dropped: retransmission timers would be what is measured."""
SETTINGS = ("net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")


class Lab:
    """The emulated fabric while the ``with`` block lasts. ``slowdown``: the fabric's rates over the lab's."""

    def __init__(self, fabric: Fabric, slowdown: float) -> None:
        """Raises ConfigurationError where this cannot be built: not Linux, not root, no iproute2, too many nodes, several accelerators in a node."""
        missing = [tool for tool in ("ip", "tc", "sysctl") if shutil.which(tool) is None]
        if missing or not hasattr(os, "geteuid") or os.geteuid() != 0:
            raise ConfigurationError(f"lab: needs Linux, root and iproute2{f' (missing: {missing[0]})' if missing else ''}")
        if len(fabric.graph) > NODES_MOST or len(set(fabric.domains.tolist())) < fabric.size:
            what = f"{fabric.spec.name} has {len(fabric.graph)} hosts and switches, {fabric.size} accelerators"
            raise ConfigurationError(f"lab: at most {NODES_MOST} hosts and switches, and one accelerator a host; {what}")
        self.fabric = fabric
        self.slowdown = slowdown
        self._space = {name: f"lab{os.getpid()}-{i}" for i, name in enumerate(fabric.graph)}
        self._interface: dict[tuple[str, str], tuple[str, str]] = {}
        for number, (one, other) in enumerate(sorted({(min(link), max(link)) for link in fabric.links})):
            base = 2 * number
            for end, (tail, head) in enumerate(((one, other), (other, one))):
                self._interface[tail, head] = (f"v{number}{'ab'[end]}", f"10.1.{(base + end) // 256}.{(base + end) % 256}")

    def __enter__(self) -> Self:
        try:
            self._build()
        except subprocess.CalledProcessError as error:
            self._clean()
            raise ConfigurationError(f"lab: {' '.join(error.cmd[:6])} failed: {(error.stderr or '').strip().splitlines()[0:1]}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._clean()

    def address(self, rank: int) -> str:
        """Address of an endpoint."""
        return f"10.2.0.{rank + 1}"

    def command(self, name: str, *words: str) -> list[str]:
        """A command inside the namespace of a node."""
        return ["ip", "netns", "exec", self._space[name], *words]

    def sent_bytes(self) -> dict[tuple[str, str], int]:
        """What each link has carried so far, by the interfaces' own counters."""
        found: dict[tuple[str, str], int] = {}
        for name in self.fabric.graph:
            ends = [(head, self._interface[name, head][0]) for head in self.fabric.graph.successors(name)]
            text = _run(*self.command(name, "cat", *(f"/sys/class/net/{interface}/statistics/tx_bytes" for _, interface in ends)))
            found |= {(name, head): int(line) for (head, _), line in zip(ends, text.split(), strict=True)}
        return found

    def _build(self) -> None:
        for space in self._space.values():
            _run("ip", "netns", "add", space)
        for name, space in self._space.items():
            _run(*self.command(name, "sysctl", "-qw", *SETTINGS))
            _run("ip", "-n", space, "link", "set", "lo", "up")
        for rank, name in enumerate(self.fabric.endpoints):
            _run("ip", "-n", self._space[name], "address", "add", f"{self.address(rank)}/32", "dev", "lo")
        for (tail, head), (interface, _) in self._interface.items():
            if interface.endswith("a"):
                other, _ = self._interface[head, tail]
                _run("ip", "-n", self._space[tail], "link", "add", interface, "type", "veth", "peer", "name", other, "netns", self._space[head])
        for (tail, head), (interface, address) in self._interface.items():
            rate = self.lab_bytes_per_s(tail, head)
            _run("ip", "-n", self._space[tail], "address", "add", f"{address}/31", "dev", interface)
            _run("ip", "-n", self._space[tail], "link", "set", interface, "up")
            shape = ("rate", f"{8 * rate:.0f}bit", "burst", f"{BURST_BYTES}", "latency", f"{QUEUE_MS}ms")
            _run("tc", "-n", self._space[tail], "qdisc", "add", "dev", interface, "root", "tbf", *shape)
        for name, space in self._space.items():
            _run("ip", "-n", space, "-batch", "-", text="\n".join(self._routes(name)))

    def lab_bytes_per_s(self, tail: str, head: str) -> float:
        """Rate of a link in the lab, faults counted."""
        data = self.fabric.graph.edges[tail, head]
        return float(data["bytes_per_s"] * data["health"] / self.slowdown)

    def _routes(self, name: str) -> list[str]:
        lines = []
        own = self.fabric.endpoints.index(name) if name in self.fabric.endpoints else None
        for rank in range(self.fabric.size):
            if rank != own:
                hops = [(self._interface[name, hop][0], self._interface[hop, name][1]) for hop in self.fabric.routes.next_hops(name, rank)]
                nexthops = " ".join(f"nexthop via {address} dev {interface}" for interface, address in hops)
                lines.append(f"route add {self.address(rank)}/32 {'' if own is None else f'src {self.address(own)} '}{nexthops}")
        return lines

    def _clean(self) -> None:
        for space in self._space.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def _run(*words: str, text: str | None = None) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, input=text).stdout
