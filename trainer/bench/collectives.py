"""Time of each collective over message sizes: two or more processes of this machine, gloo on CPU, NCCL by transport on GPUs."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Row = dict[str, Any]
TRANSPORTS = {"nvlink": {}, "shm": {"NCCL_P2P_DISABLE": "1"}, "socket": {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"}}
"""Settings that leave NCCL one way between the GPUs of a machine."""
SIZES_BYTES = {"cpu": (2**10, 2**14, 2**18, 2**22), "cuda": (2**10, 2**14, 2**18, 2**22, 2**26, 2**28)}
"""Less what is left over when every rank gets an equal part of a buffer of bf16."""


def collective_rows(device: str, ranks: int, repeats: int) -> list[Row]:
    """Rows of every transport."""
    rows: list[Row] = []
    for transport, settings in ({"gloo": {}} if device == "cpu" else TRANSPORTS).items():
        rows += _run(device, ranks, repeats, transport, settings)
    return rows


def _run(device: str, ranks: int, repeats: int, transport: str, settings: dict[str, str]) -> list[Row]:
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [context.Process(target=_worker, args=(rank, ranks, port, device, repeats, transport, settings, results)) for rank in range(ranks)]
    for worker in workers:
        worker.start()
    rows: list[Row] = results.get() if not _failed(workers, results) else []
    for worker in workers:
        worker.join()
    if not rows:
        raise RuntimeError(f"collectives over {transport} failed: a process left with {[worker.exitcode for worker in workers]}")
    return rows


def _failed(workers: list[Any], results: Any) -> bool:
    while results.empty():
        if any(worker.exitcode not in (None, 0) for worker in workers):
            for worker in workers:
                worker.terminate()
            return True
        time.sleep(0.05)
    return False


def _worker(rank: int, ranks: int, port: int, device: str, repeats: int, transport: str, settings: dict[str, str], results: Any) -> None:
    os.environ.update(settings)
    if device == "cuda":
        torch.cuda.set_device(rank)
    torch.set_num_threads(1)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    rows = [
        {"op": name, "bytes": size, "ranks": ranks, "transport": transport, "us": _repeats_us(_work(name, size, ranks, device), device, repeats)}
        for size in (size - size % (2 * ranks) for size in SIZES_BYTES[device])
        for name in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
    ]
    if rank == 0:
        results.put(rows)
    dist.barrier()
    dist.destroy_process_group()


def _work(name: str, size: int, ranks: int, device: str) -> Callable[[], object]:
    """``size``: bytes of the whole buffer: the output of all-gather, the input of the others; bf16."""
    whole, part = (torch.ones(size // 2 // share, dtype=torch.bfloat16, device=device) for share in (1, ranks))
    other = torch.empty_like(whole)
    calls: dict[str, Callable[[], object]] = {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "all_to_all": lambda: dist.all_to_all_single(other, whole),
        "broadcast": lambda: dist.broadcast(whole, 0),
    }
    return calls[name]


def _repeats_us(work: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Microseconds of one call, the slowest rank's, repeat by repeat."""
    work()
    calls = 5
    found = []
    for _ in range(repeats):
        dist.barrier()
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds: Tensor = torch.tensor([(time.perf_counter() - begin) / calls], device=device)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        found.append(float(seconds) * 1e6)
    return found
