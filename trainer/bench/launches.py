"""What a kernel costs on a GPU beside its work: from the call to the end of the wait for it, and in a CUDA graph."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from trainer.bench.timing import Timing, timed, wait

CALLS = 200


def launch_rows(repeats: int) -> Iterator[tuple[str, dict[str, Any], Timing]]:
    """Kind, what it is, and seconds of one kernel of 64 elements; in a graph if one could be captured."""
    x = torch.zeros(64, device="cuda")
    yield "launch", {"op": "kernel_and_wait"}, _waited(x, repeats)
    in_graph = timed(lambda: x.add_(1.0), "cuda", repeats)
    if in_graph.issued == "graph":
        yield "launch", {"op": "kernel_in_graph"}, in_graph


def _waited(x: torch.Tensor, repeats: int) -> Timing:
    seconds = []
    for _ in range(repeats):
        wait("cuda")
        begin = time.perf_counter()
        for _ in range(CALLS):
            x.add_(1.0)
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begin) / CALLS)
    return Timing(seconds, CALLS)
