"""How much of the communication hides behind computation, from a profile of the device's kernels."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Span = tuple[float, float]
"""Beginning and end, seconds."""


@dataclass(frozen=True)
class Overlap:
    """Seconds in which kernels of either kind ran. ``exposed_s``: communication with no computation beside it."""

    communication_s: float
    computation_s: float
    exposed_s: float


def overlap(profile: Any) -> Overlap:
    """Split the CUDA kernels of a ``torch.profiler.profile``: NCCL's and all others, copies included."""
    communication: list[Span] = []
    computation: list[Span] = []
    for event in profile.events():
        # Annotations of the profiler's user span kernels and are none.
        if event.device_type.name == "CUDA" and not event.is_user_annotation:
            spans = communication if event.name.startswith("nccl") else computation
            spans.append((event.time_range.start / 1e6, event.time_range.end / 1e6))
    return overlap_of(communication, computation)


def overlap_of(communication: Iterable[Span], computation: Iterable[Span]) -> Overlap:
    """The same for given spans."""
    talking, working = union(communication), union(computation)
    together = union([*talking, *working])
    return Overlap(_length(talking), _length(working), _length(together) - _length(working))


def union(spans: Iterable[Span]) -> list[Span]:
    """Disjoint spans that cover the same time."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _length(spans: list[Span]) -> float:
    return sum(end - begin for begin, end in spans)
