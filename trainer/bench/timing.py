"""Time one call of a function: several repeats, each of enough calls to be well above the clock's grain."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

LEAST_S = 2e-3
"""A repeat lasts at least about this long."""
MOST_CALLS = 1000
OUTLIER = 1.5
"""A repeat slower than this times the median is marked as an outlier; it is kept."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, repeat by repeat; ``calls`` in each repeat."""

    repeats_s: list[float]
    calls: int

    @property
    def median_s(self) -> float:
        """Median over the repeats."""
        return median(self.repeats_s)

    @property
    def outliers(self) -> list[int]:
        """Which repeats were much slower than the median."""
        return [index for index, seconds in enumerate(self.repeats_s) if seconds > OUTLIER * self.median_s]

    def as_dict(self) -> dict[str, object]:
        """Plain content."""
        return {"median_s": self.median_s, "repeats_s": self.repeats_s, "calls": self.calls, "outliers": self.outliers}


def timed(work: Callable[[], object], device: str, repeats: int, *, calls: int | None = None) -> Timing:
    """Warm up, find out how many calls a repeat needs where it is not said, then measure: CUDA events on a GPU, the host's clock on CPU."""
    work()
    if calls is None:
        once_s = max(_seconds(work, device, 1), 1e-7)
        calls = max(1, min(MOST_CALLS, round(LEAST_S / once_s)))
    return Timing([_seconds(work, device, calls) / calls for _ in range(repeats)], calls)


def host_timed(work: Callable[[], object], device: str, repeats: int) -> Timing:
    """The host's time to issue one call, the device keeping up."""
    work()
    calls = 200
    seconds = []
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        seconds.append((time.perf_counter() - begin) / calls)
    wait(device)
    return Timing(seconds, calls)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(work: Callable[[], object], device: str, calls: int) -> float:
    wait(device)
    if device != "cuda":
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        return time.perf_counter() - begin
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    for _ in range(calls):
        work()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000
