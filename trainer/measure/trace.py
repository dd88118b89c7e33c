"""A step as a file that chrome://tracing and Perfetto show: the profiler's trace, with a lane for the components of the step.

The lane "host" says what the host was issuing, a lane for each stream of a GPU which component its kernels belong to.
"""

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from configuration.errors import ConfigurationError
from configuration.files import write_atomically
from trainer.measure.profile import Profile

SUFFIXES = (".json", ".json.gz")
LANES = "components of the step"

Event = dict[str, Any]


def check_trace_file(file: Path) -> None:
    """Raise ConfigurationError for a name that the viewers would not know."""
    if not file.name.endswith(SUFFIXES):
        raise ConfigurationError(f"--trace {file}: must end in {' or '.join(SUFFIXES)}")


def write_trace(profile: Profile, file: Path) -> None:
    """Write the trace, packed where the name ends in .gz."""
    content = json.dumps(profile.trace | {"traceEvents": [*profile.trace["traceEvents"], *_lanes(profile)]}).encode()
    write_atomically(file, gzip.compress(content) if file.name.endswith(".gz") else content)


def _lanes(profile: Profile) -> list[Event]:
    ends_ns = [ns for ns, _ in profile.marks[1:]] + [profile.end_ns]
    host = [
        _event(place[0], place[1], "host", profile.seconds(begin), profile.seconds(end))
        for (begin, place), end in zip(profile.marks, ends_ns, strict=True)
        if end > begin
    ]
    return [{"ph": "M", "name": "process_name", "pid": LANES, "args": {"name": LANES}}, *host, *_device(profile)]


def _device(profile: Profile) -> list[Event]:
    """Neighbouring kernels of one component on one stream as one."""
    lanes: dict[str, list[tuple[Any, float, float]]] = defaultdict(list)
    for kernel in profile.kernels:
        place, lane = profile.place(kernel.launched_s), lanes[kernel.stream]
        if place is None:
            continue
        if lane and lane[-1][0] == place:
            lane[-1] = (place, lane[-1][1], kernel.span[1])
        else:
            lane.append((place, *kernel.span))
    return [_event(place[0], place[1], f"stream {stream}", begin, end) for stream, lane in lanes.items() for place, begin, end in lane]


def _event(phase: str, component: str, lane: str, begin_s: float, end_s: float) -> Event:
    return {
        "ph": "X", "cat": "component", "name": component, "pid": LANES, "tid": lane, "ts": begin_s * 1e6, "dur": (end_s - begin_s) * 1e6,
        "args": {"phase": phase},
    }  # fmt: skip
