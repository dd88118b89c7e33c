"""Published collective benchmarks (a CSV with one measured size per row) as measurements on fabrics, and how well pricing follows them.

Columns used: source, source_section, gpu, gpus, nodes, gpus_per_node, message_bytes, time_us, busbw_GBs, fraction_of_nominal. What a source does not state is
assumed in ``SOURCES`` and said there.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configuration.errors import ConfigurationError
from configuration.spec import validated
from fabrics.fitting import Measured, errors, fit_source
from fabrics.graph import Fabric
from fabrics.loading import LINK_PROFILES, build, load_fabric
from fabrics.network import FloatArray
from fabrics.spec import LinkProfile
from fabrics.topologies.clos import Clos

LEAST_BYTES = 2**20
Row = dict[str, str]


@dataclass(frozen=True)
class Source:
    """How rows of a source are recognised and read. ``algorithms`` by whether the ranks share one scale-up domain; ``time_s`` from a row and rank count."""

    matches: Callable[[Row], bool]
    collective: str
    scale_up_bytes_per_s: float
    port_bytes_per_s: float
    one_domain: tuple[str, ...]
    several: tuple[str, ...]
    time_s: Callable[[Row, int], float]
    assumed: str
    domain: int = 8


def _measured_s(row: Row, ranks: int) -> float:
    """From the time, else from the bus bandwidth of an all-reduce (nccl-tests: 2(p-1)/p bytes over time)."""
    if row["time_us"]:
        return float(row["time_us"]) * 1e-6
    return 2 * (ranks - 1) / ranks * float(row["message_bytes"]) / (float(row["busbw_GBs"]) * 1e9)


def _ring_over_nvlink_s(row: Row, ranks: int) -> float:
    return 2 * (ranks - 1) / ranks * float(row["message_bytes"]) / (float(row["fraction_of_nominal"]) * 450e9)


def _ring_over_ports_s(row: Row, ranks: int) -> float:
    return 2 * (ranks - 1) / ranks * float(row["message_bytes"]) / 8 / (float(row["fraction_of_nominal"]) * 50e9)


def _exchange_s(row: Row, ranks: int) -> float:
    bytes_, fraction = float(row["message_bytes"]), float(row["fraction_of_nominal"])
    return (ranks - 1) / ranks * bytes_ / (fraction * 450e9) if ranks == 8 else (ranks - 8) / ranks * bytes_ / (fraction * 50e9)


def _says(**parts: str) -> Callable[[Row], bool]:
    return lambda row: all(part in row[column] for column, part in parts.items())


RATIO = "ratio of the payload of the hottest link, taken as NVLink 450 GB/s and one 50 GB/s port per GPU; the measuring hardware is not documented"
SOURCES = {
    "AWS A100, 2 nodes": Source(
        _says(source="aws-samples", gpu="A100"), "all-reduce", 300e9, 6.25e9, ("ring",), ("ring", "tree"), _measured_s, "4 x 100 Gb/s shared by 8 GPUs"
    ),
    "AWS H100, 2 nodes": Source(
        lambda row: "aws-samples" in row["source"] and "H100" in row["gpu"] and "EKS" not in row["source_section"],
        *("all-reduce", 450e9, 50e9, ("nvls",), ("nvls-tree",), _measured_s, "NVLS between nodes by tree: the bus bandwidth exceeds the ports"),
    ),
    "AWS H100, EKS log": Source(
        _says(source="aws-samples", gpu="H100", source_section="EKS"), "all-reduce", 450e9, 50e9, ("nvls",), ("nvls-tree",), _measured_s, "as above"
    ),
    "CoreWeave H100, 8 nodes": Source(
        _says(source="coreweave", gpu="H100"), "all-reduce", 450e9, 50e9, ("ring",), ("ring",), _measured_s, "rings, although the job's name says SHARP"
    ),
    "CoreWeave GB200": Source(
        _says(source="coreweave", gpu="GB200"),
        *("all-reduce", 900e9, 50e9, ("nvls",), ("nvls-tree",), _measured_s, "racks of 72 as one domain; one 400 Gb/s port per GPU"),
        domain=72,
    ),
    "ml-engineering, 4 nodes": Source(
        _says(source="network/benchmarks"), "all-reduce", 300e9, 12.5e9, ("ring",), ("ring",), _measured_s, "hardware not stated: A100 with 100 Gb/s per GPU"
    ),
    "SimAI all-to-all": Source(_says(source="ata_ratio"), "all-to-all", 450e9, 50e9, ("pairwise",), ("pairwise",), _exchange_s, RATIO),
    "SimAI rings over ports": Source(_says(source="nic_ratio"), "all-reduce", 450e9, 50e9, ("ring",), ("ring",), _ring_over_ports_s, RATIO),
    "SimAI rings over NVLink": Source(_says(source="nvlink_ratio"), "all-reduce", 450e9, 50e9, ("ring",), ("ring",), _ring_over_nvlink_s, RATIO),
}


def read(path: Path) -> tuple[dict[str, list[Measured]], list[str]]:
    """Measurements per source above 1 MiB, one per node count; and what was left out, with its reason. Raises ConfigurationError for an unreadable file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigurationError(f"published runs: {path}: {error.strerror}") from None
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    left: dict[str, int] = {}
    for row in rows:
        name = next((name for name, source in SOURCES.items() if source.matches(row)), None)
        if name is None or not row["message_bytes"]:
            reason = "no source with a series of sizes" if row["message_bytes"] else "no message size"
            text = f"{row['source'].split(' (')[0]}, {row['collective']}: {reason}"
            left[text] = left.get(text, 0) + 1
        elif float(row["message_bytes"]) >= LEAST_BYTES:
            nodes = int(row["nodes"])
            ranks = nodes * int(row["gpus_per_node"] or 8)
            point = (float(row["message_bytes"]), SOURCES[name].time_s(row, ranks))
            found.setdefault(name, {}).setdefault(ranks, []).append(point)
    measured = {name: [_measured(SOURCES[name], ranks, points) for ranks, points in sorted(groups.items())] for name, groups in found.items()}
    return measured, [f"{reason} ({count} rows)" for reason, count in sorted(left.items())]


def _measured(source: Source, ranks: int, points: list[tuple[float, float]]) -> Measured:
    sizes, times = np.array(sorted(points)).T
    domains = max(1, ranks // source.domain)
    algorithms = source.one_domain if domains == 1 else source.several
    return Measured(_fabric(source, domains), source.collective, [tuple(range(ranks))], sizes, times, algorithms)


def _fabric(source: Source, domains: int) -> Fabric:
    """One node, or nodes on a rail-optimised leaf-spine network that is not oversubscribed."""
    if domains == 1:
        return load_fabric("single-node", {"accelerators": source.domain, "link_bytes_per_s": source.scale_up_bytes_per_s, "link_profile": "ideal"})
    fields = {
        "kind": "clos",
        "name": "published",
        "device": "",
        "link_profile": LINK_PROFILES.load("ideal"),
        "oversubscription": 1,
        "leaves": source.domain,
        "rails": source.domain,
        "spines": source.domain,
        "hosts_per_leaf": domains,
        "accelerators_per_node": source.domain,
        "link_bytes_per_s": source.port_bytes_per_s,
        "hop_latency_s": 0.5e-6,
        "scale_up_bytes_per_s": source.scale_up_bytes_per_s,
        "scale_up_latency_s": 0.25e-6,
    }
    return build(validated(Clos, fields, "published runs"))


def fit(measured: list[Measured], cite: str) -> LinkProfile:
    """Constants of a source from every other size of each series; as many pieces as the rows carry."""
    fitted = [part.alternate(0) for part in measured]
    return fit_source(fitted, cite, pieces=int(np.clip(sum(len(part.bytes) for part in fitted) // 2, 1, 3)))


def score(measured: list[Measured], profile: LinkProfile) -> FloatArray:
    """Signed relative errors on the sizes that were not fitted, all series of the source together."""
    return np.concatenate([errors(part.alternate(1), profile) for part in measured if len(part.bytes) > 1])
