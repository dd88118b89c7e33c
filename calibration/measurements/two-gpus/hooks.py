"""``python hooks.py STEP.json TRACE.json.gz [OUT.json]``: where a step of sharded parameters spends its time, from the trace of one step of the first rank.

Says also what a hook of ``fully_shard`` takes of the host beside its calls (``hook_overhead_s`` of a device). Tracing lengthens a step: by as much for every
event of the host, as is assumed here.
"""

import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from configuration.overrides import parse_single
from simulator.program.build import build_program
from simulator.specs import load_model, load_plan
from simulator.specs.presets import DEVICES

CALLS = ("cudaLaunchKernel", "cuLaunchKernel", "cudaStreamWaitEvent", "cudaEventRecord", "cudaStreamSynchronize", "cudaDeviceSynchronize")
"""What their names begin with."""

HOST_WORK = ("cpu_op", "user_annotation", "cuda_runtime", "cuda_driver")
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of a trace's events."""

Event = dict[str, Any]
Span = tuple[float, float]
"""Beginning and end, seconds."""


def main() -> None:
    """Print it, and write it."""
    step = json.loads(Path(sys.argv[1]).read_text())
    with gzip.open(sys.argv[2], "rt") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    found = hooks(step, events) | devices(events)
    print(json.dumps(found, indent=1))
    if len(sys.argv) > 3:
        Path(sys.argv[3]).write_text(json.dumps(found, indent=1) + "\n")


def hooks(step: dict[str, Any], events: list[Event]) -> dict[str, Any]:
    """The host's time inside and outside of hooks; seconds of a range hold those of ranges inside it."""
    host = [event for event in events if event.get("cat") in HOST_WORK]
    traced_s = next(event["dur"] for event in host if event["name"].startswith("ProfilerStep")) / 1e6
    event_s = max(0.0, traced_s - step["step_s"]) / len(host)
    ranges: dict[str, list[Event]] = defaultdict(list)
    for event in host:
        if event["name"].startswith("FSDP::"):
            ranges[event["name"].split()[0].removeprefix("FSDP::")].append(event)
    inside = {thread: union(_span(event) for event in host if event["tid"] == thread and event["name"].startswith("FSDP::")) for thread in _threads(host)}
    held = sum(any(begin <= event["ts"] / 1e6 < end for begin, end in inside[event["tid"]]) for event in host)
    hooks_s = sum(length(spans) for spans in inside.values())
    count = len(ranges["all_gather"]) + len(ranges["post_backward_reduce"])
    calls = hook_calls(step)
    issued_s = calls * DEVICES.load("h200-sxm-141gb").host_overhead_s.value
    return {
        "step_s": step["step_s"], "traced_step_s": traced_s, "tracing_s_an_event": event_s,
        "ranges": {name: _total(of, "") for name, of in sorted(ranges.items())},
        "hooks_traced_s": hooks_s, "hooks_s": hooks_s - held * event_s, "events_of_host": len(host), "events_in_hooks": held,
        "gathers_and_reductions": count, "calls_and_launches_of_the_program": calls,
        "hook_overhead_s": (hooks_s - held * event_s - issued_s) / count,
        "host_calls": {name: _total(host, name) for name in CALLS},
    }  # fmt: skip


def hook_calls(step: dict[str, Any]) -> int:
    """What the hooks ask of the host in the simulator's program of this step, each taken to cost it ``host_overhead_s``."""
    overrides = parse_single(step["settings"], ("model", "plan"))
    model = load_model(step["model"], overrides.get("model"))
    plan, _ = load_plan(model, step["plan"], overrides.get("plan"), ranks=len(step["placement"]), ranks_reason="of the measurement", precision="fp32")
    program = build_program(model, plan, on_cpu=False)
    found: Counter[str] = Counter()
    for turn in program.turns:
        for stretch in program.stretches:
            run = stretch.segment.passes[turn]
            for operation in (*run.forward, *run.backward):
                found[operation.component] += stretch.count * (round(operation.launches.at(stretch.bindings)) + operation.calls)
    return found["parameter_gather"] + found["gradient_sync"]


def devices(events: list[Event]) -> dict[str, Any]:
    """The device's time, and the collectives by kind, elements and type: bytes that a rank sends over the median of seconds."""
    work = [event for event in events if event.get("cat") in DEVICE_WORK]
    collectives: dict[str, list[Event]] = defaultdict(list)
    for event in work:
        if "Collective name" in event["args"]:
            collectives[" ".join(str(event["args"][key]) for key in ("Collective name", "In msg nelems", "dtype"))].append(event)
    talking = [_span(event) for event in work if event["name"].startswith("nccl")]
    working = [_span(event) for event in work if not event["name"].startswith("nccl")]
    whole = union(talking + working)
    computation_s = length(union(working))
    return {
        "communication_s": length(union(talking)), "computation_s": computation_s, "exposed_s": length(whole) - computation_s,
        "idle_s": whole[-1][1] - whole[0][0] - length(whole),
        "collectives": {name: {"count": len(of), "median_s": median(event["dur"] for event in of) / 1e6, "longest_s": max(event["dur"] for event in of) / 1e6}
                        for name, of in sorted(collectives.items())},
    }  # fmt: skip


def union(spans: Iterable[Span]) -> list[Span]:
    """Disjoint spans that cover the same time."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def length(spans: Iterable[Span]) -> float:
    """Seconds of disjoint spans."""
    return sum(end - begin for begin, end in spans)


def _span(event: Event) -> Span:
    return event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6


def _threads(events: list[Event]) -> set[int]:
    return {event["tid"] for event in events}


def _total(events: list[Event], name: str) -> dict[str, float]:
    seconds = [event["dur"] / 1e6 for event in events if event["name"].startswith(name)]
    return {"count": len(seconds), "seconds": sum(seconds)}


if __name__ == "__main__":
    main()
