"""An all-to-all sent for real through the lab, beside what the model says of it."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configuration.errors import ConfigurationError
from fabrics.cost import cost
from fabrics.graph import Fabric
from fabrics.lab.namespaces import Lab
from fabrics.loading import LINK_PROFILES, build
from fabrics.units import bytes_text, rate, seconds

if TYPE_CHECKING:
    from rich.console import Console

PAYLOAD = 1448 / 1514
"""Bytes that TCP carries of an Ethernet frame of 1,500 bytes with its 14 of header, as a token bucket counts them."""
PORT = 5201
LEAD_S = 2.0
"""Time for all connections to be made."""
ROUND_MOST_S = 300
SEEDS = 50


@dataclass(frozen=True)
class Round:
    """One exchange: seconds from the common start to the last byte, and what each link carried."""

    time_s: float
    link_bytes: dict[tuple[str, str], int]


def measure(fabric: Fabric, bytes_per_pair: int, host_bytes_per_s: float, repeats: int) -> dict[str, Any]:
    """Build the lab, run the exchange ``repeats`` times, and lay model and measurement side by side. Raises ConfigurationError where no lab can be built."""
    if fabric.size < 2:
        raise ConfigurationError("lab: one accelerator alone sends nothing")
    fastest = max(float(fabric.graph.edges[edge]["bytes_per_s"]) for edge in fabric.graph.out_edges(fabric.endpoints))
    slowdown = fastest / host_bytes_per_s
    with Lab(fabric, slowdown) as lab:
        rounds = [_exchange(lab, bytes_per_pair) for _ in range(repeats)]
        rates = {link: lab.lab_bytes_per_s(*link) for link in fabric.links}
    ideal = build(fabric.spec.model_copy(update={"link_profile": LINK_PROFILES.load("ideal")}))
    ideal = ideal.without(fabric.failed, fabric.slow) if fabric.failed or fabric.slow else ideal

    def predicted(**routing: object) -> float:
        chosen = fabric.spec.routing.model_copy(update=routing)
        total = bytes_per_pair * fabric.size
        return float(cost(ideal, "all-to-all", [tuple(range(fabric.size))], total, algorithm="pairwise", routing=chosen).transfer_s[0]) * slowdown / PAYLOAD

    hashed = [predicted(mode="ecmp", seed=seed, flows_per_pair=1) for seed in range(SEEDS)]
    rows = []
    for done in rounds:
        link = max(rates, key=lambda edge: done.link_bytes[edge] / rates[edge])
        counted = done.link_bytes[link] / rates[link]
        rows.append({"measured_s": done.time_s, "hottest_link": "->".join(link), "its_bytes_over_its_rate_s": counted, "error": counted / done.time_s - 1})
    return {
        "schema_version": 1,
        "fabric": fabric.spec.name,
        "ranks": fabric.size,
        "bytes_per_pair": bytes_per_pair,
        "host_bytes_per_s": host_bytes_per_s,
        "slowdown": slowdown,
        "predicted_even_s": predicted(mode="ideal"),
        "predicted_hashed_mean_s": float(np.mean(hashed)),
        "predicted_hashed_p10_s": float(np.percentile(hashed, 10)),
        "predicted_hashed_p90_s": float(np.percentile(hashed, 90)),
        "rounds": rows,
    }


def _exchange(lab: Lab, bytes_per_pair: int) -> Round:
    size = lab.fabric.size
    before = lab.sent_bytes()
    worker = [sys.executable, str(Path(__file__).with_name("worker.py"))]
    workers = [subprocess.Popen(lab.command(name, *worker), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in lab.fabric.endpoints]
    try:
        for rank, process in enumerate(workers):
            others = [(lab.address((rank + k) % size), bytes_per_pair) for k in range(1, size)]
            _say(process, json.dumps({"address": lab.address(rank), "port": PORT, "senders": size - 1, "to": others}))
        for process in workers:
            _hear(process)
        start = time.monotonic() + LEAD_S
        for process in workers:
            _say(process, str(start))
        finished = max(float(_hear(process)) for process in workers)
        for process in workers:
            process.wait(ROUND_MOST_S)
    finally:
        for process in workers:
            process.kill()
            process.wait()
    after = lab.sent_bytes()
    return Round(finished - start, {link: after[link] - before[link] for link in after})


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ConfigurationError("lab: a host of the lab ended early")
    return line.strip()


def show(document: dict[str, Any], console: "Console") -> None:
    """What was predicted and what was measured."""
    from rich import box
    from rich.table import Table

    size, host = bytes_text(document["bytes_per_pair"]), rate(document["host_bytes_per_s"])
    even, mean, low, high = (seconds(document[f"predicted_{name}_s"]) for name in ("even", "hashed_mean", "hashed_p10", "hashed_p90"))
    console.print(
        f"{document['fabric']}: {document['ranks']} hosts, {size} per pair, host links of {host} ({document['slowdown']:,.0f} times slower than the fabric's), "
        "for real in network namespaces"
    )
    console.print(f"predicted: {even} split evenly; {mean} hashed (mean over {SEEDS} seeds, p10 to p90 {low} to {high})")
    table = Table("round", "measured", "hottest link (counted)", "its bytes over its rate", "error", box=box.SIMPLE_HEAD)
    for number, row in enumerate(document["rounds"], 1):
        table.add_row(str(number), seconds(row["measured_s"]), row["hottest_link"], seconds(row["its_bytes_over_its_rate_s"]), f"{row['error']:+.1%}")
    console.print(table)
    console.print(
        "The kernel hashes every connection to a path; the counters say how. Given those routes the model's time is the hottest link's bytes over its rate."
    )
