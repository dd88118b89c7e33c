"""Spans of time: their union, what of some lies outside of others, and how much of the communication hides behind computation."""

from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[float, float]
"""Beginning and end, seconds."""


@dataclass(frozen=True)
class Overlap:
    """Seconds in which kernels of either kind ran. ``exposed_s``: communication with no computation beside it."""

    communication_s: float
    computation_s: float
    exposed_s: float


def overlap_of(communication: Iterable[Span], computation: Iterable[Span]) -> Overlap:
    """Split the time of kernels that communicate and of all others."""
    talking, working = union(communication), union(computation)
    return Overlap(length(talking), length(working), length(outside(talking, working)))


def union(spans: Iterable[Span]) -> list[Span]:
    """Disjoint spans that cover the same time."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def outside(spans: Iterable[Span], covered: list[Span]) -> list[Span]:
    """The parts of disjoint, sorted ``spans`` that disjoint, sorted ``covered`` ones leave free."""
    found = []
    first = 0
    for begin, end in spans:
        while first < len(covered) and covered[first][1] <= begin:
            first += 1
        for other_begin, other_end in covered[first:]:
            if other_begin >= end:
                break
            if other_begin > begin:
                found.append((begin, other_begin))
            begin = max(begin, other_end)
        if begin < end:
            found.append((begin, end))
    return found


def length(spans: Iterable[Span]) -> float:
    """Seconds of disjoint spans."""
    return sum(end - begin for begin, end in spans)
