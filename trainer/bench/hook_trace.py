"""``python -m trainer.bench.hook_trace STEP.json TRACE.json.gz OUT.json``: where a step of sharded parameters spends its time, from the trace of one step.

STEP and TRACE are of ``parallel_steps``, TRACE of the first rank. Tracing lengthens a step: by as much for every event of the host, as is assumed here.
"""

import gzip
import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from configuration.files import write_atomically
from trainer.measure.profile import DEVICE_WORK, LAUNCHES
from trainer.measure.spans import Span, length, overlap_of, union

CALLS = ("cudaLaunchKernel", "cuLaunchKernel", "cudaStreamWaitEvent", "cudaEventRecord", "cudaStreamSynchronize", "cudaDeviceSynchronize")
"""What their names begin with."""

HOST_WORK = ("cpu_op", "user_annotation", *LAUNCHES)
"""Categories of a trace's events."""

Event = dict[str, Any]


def main() -> None:
    """Print it, and write it."""
    step = json.loads(Path(sys.argv[1]).read_text())
    with gzip.open(sys.argv[2], "rt") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    text = json.dumps(hooks(step["step_s"], events) | devices(events), indent=1) + "\n"
    write_atomically(Path(sys.argv[3]), text)
    print(text, end="")


def hooks(step_s: float, events: list[Event]) -> dict[str, Any]:
    """The host's time in the hooks of ``fully_shard``, all threads; seconds of a range hold those of ranges inside it. ``step_s``: untraced."""
    host = [event for event in events if event.get("cat") in HOST_WORK]
    traced_s = next(event["dur"] for event in host if event["name"].startswith("ProfilerStep")) / 1e6
    event_s = max(0.0, traced_s - step_s) / len(host)
    ranges: dict[str, list[Event]] = defaultdict(list)
    for event in host:
        if event["name"].startswith("FSDP::"):
            ranges[event["name"].split()[0].removeprefix("FSDP::")].append(event)
    inside = {thread: union(_span(event) for event in host if event["tid"] == thread and event["name"].startswith("FSDP::")) for thread in _threads(host)}
    held = sum(any(begin <= event["ts"] / 1e6 < end for begin, end in inside[event["tid"]]) for event in host)
    hooks_s = sum(length(spans) for spans in inside.values())
    count = len(ranges["all_gather"]) + len(ranges["post_backward_reduce"])
    return {
        "step_s": step_s, "traced_step_s": traced_s, "tracing_s_an_event": event_s,
        "ranges": {name: _total(of, "") for name, of in sorted(ranges.items())},
        "hooks_traced_s": hooks_s, "hooks_s": hooks_s - held * event_s, "events_of_host": len(host), "events_in_hooks": held,
        "gathers_and_reductions": count,
        "host_calls": {name: _total(host, name) for name in CALLS},
    }  # fmt: skip


def devices(events: list[Event]) -> dict[str, Any]:
    """The device's time, and the collectives by kind, elements and type: bytes that a rank sends over the median of seconds."""
    work = [event for event in events if event.get("cat") in DEVICE_WORK]
    collectives: dict[str, list[Event]] = defaultdict(list)
    for event in work:
        if "Collective name" in event["args"]:
            collectives[" ".join(str(event["args"][key]) for key in ("Collective name", "In msg nelems", "dtype"))].append(event)
    talking = [_span(event) for event in work if event["name"].startswith("nccl")]
    working = [_span(event) for event in work if not event["name"].startswith("nccl")]
    whole, overlap = union(talking + working), overlap_of(talking, working)
    return {
        **asdict(overlap),
        "idle_s": whole[-1][1] - whole[0][0] - length(whole),
        "collectives": {name: {"count": len(of), "median_s": median(event["dur"] for event in of) / 1e6, "longest_s": max(event["dur"] for event in of) / 1e6}
                        for name, of in sorted(collectives.items())},
    }  # fmt: skip


def _span(event: Event) -> Span:
    return event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6


def _threads(events: list[Event]) -> set[int]:
    return {event["tid"] for event in events}


def _total(events: list[Event], name: str) -> dict[str, float]:
    seconds = [event["dur"] / 1e6 for event in events if event["name"].startswith(name)]
    return {"count": len(seconds), "seconds": sum(seconds)}


if __name__ == "__main__":
    main()
