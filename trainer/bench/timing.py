"""Time one call of a function: several repeats, each of enough calls to be well above the clock's grain.

A host needs 10 to 30 µs to issue an operation, autograd's more, and a GPU is often done sooner. So on CUDA calls are recorded in a CUDA graph, many in one,
and its replays are timed. What waits for the device or cannot be captured for another reason is issued by the host call by call, and the timing says so.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Literal

import torch

Issued = Literal["graph", "host"]

LEAST_S = 2e-3
"""A repeat lasts at least about this long."""
MOST_CALLS = 1000
OUTLIER = 1.5
"""A repeat slower than this times the median is marked as an outlier; it is kept."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, repeat by repeat; ``calls`` in each repeat. ``issued``: by a CUDA graph, or by the host, whose time it then may be."""

    repeats_s: list[float]
    calls: int
    issued: Issued = "host"

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
        return {"median_s": self.median_s, "repeats_s": self.repeats_s, "calls": self.calls, "outliers": self.outliers, "issued": self.issued}


def timed(work: Callable[[], object], device: str, repeats: int, *, calls: int | None = None) -> Timing:
    """Warm up, find out how many calls a repeat needs, then measure: replays of a graph where one can be had, else as the host issues them.

    ``calls``: so many in a repeat, issued by the host. CUDA events on a GPU, the host's clock on CPU.
    """
    work()
    if calls is None:
        calls = _enough(work, device)
        if device == "cuda":
            if (replayed := _in_graph(work, calls, repeats)) is not None:
                return replayed
            work()  # the attempt has emptied the allocator's cache
    return Timing([_seconds(work, device, calls) / calls for _ in range(repeats)], calls)


def _in_graph(work: Callable[[], object], calls: int, repeats: int) -> Timing | None:
    """Replays of a CUDA graph that lasts about as long as a repeat; None where ``work`` cannot be captured. Starts with a graph of ``calls``."""
    replay = recorded(work, calls)
    if replay is None:
        return None
    replay()
    replays = _enough(replay, "cuda")
    if replays > 1 and calls < MOST_CALLS:
        # The GPU is quicker than the host that the calls were counted by, and a short graph has much of its own launch.
        del replay
        return _in_graph(work, min(MOST_CALLS, calls * replays), repeats)
    return Timing([_seconds(replay, "cuda", replays) / (replays * calls) for _ in range(repeats)], replays * calls, "graph")


def recorded(work: Callable[[], object], calls: int) -> Callable[[], None] | None:
    """The replay of a CUDA graph of so many calls; None where ``work`` cannot be captured.

    It runs once on the capturing stream before, which makes the work spaces of its libraries, with waits refused: a capture that a wait breaks leaves PyTorch
    2.11's allocator in the belief that it goes on. ``torch.cuda.synchronize`` itself is not refused; what calls it is issued by the host too, but its
    capture's memory is lost to the process.
    """
    graph, stream = torch.cuda.CUDAGraph(), _capturing_stream()
    torch.cuda.synchronize()
    try:
        # The outer context gives the stream back even where a capture cannot be ended.
        with warnings.catch_warnings(), torch.cuda.stream(stream):
            warnings.simplefilter("ignore")  # of graphs that stay empty, and that not every wait is found
            with _waits_refused():
                work()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(calls):
                    work()
    except Exception:  # whatever a user's kernel raises
        return None
    finally:
        torch.cuda.synchronize()
    return graph.replay


@cache
def _capturing_stream() -> torch.cuda.Stream:
    """One for all graphs: cuBLAS keeps a work space for each."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@contextmanager
def _waits_refused() -> Iterator[None]:
    """Operations that wait for the device raise RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _enough(work: Callable[[], object], device: str) -> int:
    """Calls that last about ``LEAST_S``."""
    once_s = max(_seconds(work, device, 1), 1e-7)
    return max(1, min(MOST_CALLS, round(LEAST_S / once_s)))


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
