"""Measured collectives of two accelerators from a JSON-lines file, or from what ``trainer bench`` wrote, and the link profile that they give.

A line: ``transport`` (nvlink, shm, socket, gloo), ``op``, ``bytes`` (the whole buffer), ``us`` (microseconds, or repeats of which the median counts),
``repeats_us`` (the repeats, where ``us`` is one number), ``ranks`` (2); other lines are left out.
``ping_pong_round_trip`` is there and back: half of it is one message.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from configuration.errors import ConfigurationError
from fabrics.fitting import Measured, errors, fit_operation, fitted_constant
from fabrics.loading import load_fabric
from fabrics.network import FloatArray
from fabrics.spec import LinkProfile, Protocol

LINK_BYTES_PER_S = {"nvlink": 450e9, "shm": 64e9, "socket": 20e9, "gloo": 20e9}
"""Rates that the fitted efficiencies refer to: NVLink 4; PCIe 5 x16 (through host memory); sockets, gloo's too, have none: a round number is assumed."""
LINK_KINDS = {"gloo": "socket"}
"""Kind of link of a transport that is not called like it."""
FEWEST_SIZES = 3
"""A line needs two, and one is left out."""
OPERATIONS = {
    "all_reduce": ("all-reduce", "ring", 1),
    "all_to_all": ("all-to-all", "pairwise", 1),
    "all_gather": ("all-gather", "ring", 1),
    "reduce_scatter": ("reduce-scatter", "ring", 1),
    "broadcast": ("broadcast", "chain", 1),
    "ping_pong_round_trip": ("point-to-point", "send", 2),
}


def read(path: Path, transport: str, *, least: bool = False) -> list[Measured]:
    """The measurements of a transport, one per operation; ``least``: of the repeats the shortest counts instead of the median.

    Raises ConfigurationError when the file has none or cannot be read.
    """
    try:
        rows = _rows(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"measurements: {path} is readable neither as JSON lines nor as a document of trainer bench: {error}") from None
    kind = LINK_KINDS.get(transport, transport)
    overrides = {"accelerators": 2, "link_kind": kind, "link_bytes_per_s": LINK_BYTES_PER_S[transport], "hop_latency_s": 0.0, "link_profile": "ideal"}
    fabric = load_fabric("single-node", overrides)
    found = []
    for op, (collective, algorithm, messages) in OPERATIONS.items():
        chosen = [row for row in rows if row.get("transport") == transport and row.get("op") == op and row.get("ranks", 2) == 2]
        if absent := sorted({field for row in chosen for field in ("bytes", "us") if field not in row}):
            raise ConfigurationError(f"measurements: {path}: a row of {op} over {transport} has no {absent[0]} (fields: transport, op, bytes, us)")
        points = sorted((row["bytes"], _taken_us(row, least=least) * 1e-6 / messages) for row in chosen)
        if points:
            sizes, times = np.array(points, dtype=np.float64).T
            found.append(Measured(fabric, collective, [(0, 1)], sizes, times, (algorithm,)))
    if not found:
        raise ConfigurationError(f"measurements: {path} has no lines with transport {transport!r}")
    return found


def _rows(text: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        found: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        found = document.get("collectives", [document]) if isinstance(document, dict) else document
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _taken_us(row: dict[str, Any], *, least: bool) -> float:
    repeats_us = row.get("repeats_us", row["us"])
    return float(np.min(repeats_us) if least else np.median(row["us"]))


def fit(measured: list[Measured], name: str, cite: str) -> LinkProfile:
    """A profile with the protocols of each operation, fitted on every other size; point-to-point serves what was not measured.

    An all-to-all between two loads both directions alike, point-to-point one: where both were measured they tell how much the directions disturb each other.
    Raises ConfigurationError for an operation of too few sizes.
    """
    for part in measured:
        if len(part.bytes) < FEWEST_SIZES:
            raise ConfigurationError(f"measurements: {part.collective} has {len(part.bytes)} sizes, a line cannot be fitted (legal: {FEWEST_SIZES} or more)")
    fitted = {part.collective: part.alternate(0) for part in measured}
    operations = {collective: fit_operation(part, cite) for collective, part in fitted.items()}
    rest = operations.get("point-to-point") or next(iter(operations.values()))
    if {"all-to-all", "point-to-point"} <= operations.keys():
        operations["all-to-all"] = _opposed(operations["all-to-all"], fitted["all-to-all"], rest, cite)
    return LinkProfile(name=name, protocols=rest, operations=operations)


def _opposed(both: dict[str, Protocol], measured: Measured, alone: dict[str, Protocol], cite: str) -> dict[str, Protocol]:
    """Protocols of the all-to-all with the efficiency of one direction alone, taken at a message of the same size, and the share that the other costs."""
    (kind,) = measured.fabric.kinds
    rate = float(measured.fabric.bytes_per_s[0])
    taken = _cheapest(both, kind, rate, measured.bytes / 2)
    found = {}
    for i, (name, protocol) in enumerate(both.items()):
        sizes = measured.bytes[taken == i]
        together = protocol.efficiency[kind]
        middle = float(np.median(sizes)) / 2 if len(sizes) else 0.0
        single = list(alone.values())[int(_cheapest(alone, kind, rate, np.array([middle]))[0])].efficiency[kind]
        share = min(1.0, max(0.0, single.value / together.value - 1))
        if share == 0:
            found[name] = protocol
            continue
        share_error = None
        if single.standard_error is not None and together.standard_error is not None:
            share_error = (1 + share) * float(np.hypot(single.standard_error / single.value, together.standard_error / together.value))
        efficiency = fitted_constant(together.value * (1 + share), cite, single.standard_error)
        found[name] = protocol.model_copy(update={"efficiency": {kind: efficiency}, "opposing": {kind: fitted_constant(share, cite, share_error)}})
    return found


def _cheapest(protocols: dict[str, Protocol], kind: str, bytes_per_s: float, message_bytes: FloatArray) -> FloatArray:
    """Index of the protocol that sends a message soonest."""
    times = [protocol.base_s.value + message_bytes / (bytes_per_s * protocol.efficiency[kind].value) for protocol in protocols.values()]
    return np.asarray(np.argmin(times, axis=0))


def score(measured: list[Measured], profile: LinkProfile) -> dict[str, FloatArray]:
    """Signed relative errors per operation on the sizes that were not fitted."""
    return {part.collective: errors(part.alternate(1), profile) for part in measured}


def yaml_text(profile: LinkProfile) -> str:
    """The profile as a file for ``link_profiles/`` or ``--set fabric.link_profile=PATH``."""
    import yaml

    return str(yaml.safe_dump(profile.model_dump(exclude_defaults=True), sort_keys=False, width=160))
