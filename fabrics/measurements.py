"""Measured collectives of two accelerators from a JSON-lines file, and the link profile that they give.

A line: ``transport`` (nvlink, shm, socket), ``op``, ``bytes`` (the whole buffer), ``us`` (repeats in microseconds; the median counts);
other lines are left out. ``ping_pong_round_trip`` is there and back: half of it is one message.
"""

import json
from pathlib import Path

import numpy as np

from configuration.errors import ConfigurationError
from fabrics.fitting import Measured, errors, fit_operation
from fabrics.loading import load_fabric
from fabrics.network import FloatArray
from fabrics.spec import LinkProfile

LINK_BYTES_PER_S = {"nvlink": 450e9, "shm": 64e9, "socket": 20e9}
"""Rates that the fitted efficiencies refer to: NVLink 4; PCIe 5 x16 (through host memory); sockets have none of their own, a round number is assumed."""
OPERATIONS = {
    "all_reduce": ("all-reduce", "ring", 1),
    "all_to_all": ("all-to-all", "pairwise", 1),
    "all_gather": ("all-gather", "ring", 1),
    "reduce_scatter": ("reduce-scatter", "ring", 1),
    "broadcast": ("broadcast", "chain", 1),
    "ping_pong_round_trip": ("point-to-point", "send", 2),
}


def read(path: Path, transport: str) -> list[Measured]:
    """The measurements of a transport, one per operation. Raises ConfigurationError when the file has none or cannot be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"measurements: {path} is not readable as JSON lines: {error}") from None
    overrides = {"accelerators": 2, "link_kind": transport, "link_bytes_per_s": LINK_BYTES_PER_S[transport], "hop_latency_s": 0.0, "link_profile": "ideal"}
    fabric = load_fabric("single-node", overrides)
    found = []
    for op, (collective, algorithm, messages) in OPERATIONS.items():
        points = sorted((row["bytes"], np.median(row["us"]) * 1e-6 / messages) for row in rows if row.get("transport") == transport and row.get("op") == op)
        if points:
            sizes, times = np.array(points, dtype=np.float64).T
            found.append(Measured(fabric, collective, [(0, 1)], sizes, times, (algorithm,)))
    if not found:
        raise ConfigurationError(f"measurements: {path} has no lines with transport {transport!r}")
    return found


def fit(measured: list[Measured], name: str, cite: str) -> LinkProfile:
    """A profile with the protocols of each operation, fitted on every other size; point-to-point serves what was not measured."""
    operations = {part.collective: fit_operation(part.alternate(0), cite) for part in measured}
    rest = operations.get("point-to-point") or next(iter(operations.values()))
    return LinkProfile(name=name, protocols=rest, operations=operations)


def score(measured: list[Measured], profile: LinkProfile) -> dict[str, FloatArray]:
    """Signed relative errors per operation on the sizes that were not fitted."""
    return {part.collective: errors(part.alternate(1), profile) for part in measured}


def yaml_text(profile: LinkProfile) -> str:
    """The profile as a file for ``link_profiles/`` or ``--set fabric.link_profile=PATH``."""
    import yaml

    return str(yaml.safe_dump(profile.model_dump(exclude_defaults=True), sort_keys=False, width=160))
