"""Time of each collective over message sizes and group sizes: processes of this machine, gloo on CPU, NCCL by transport on GPUs."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.bench.timing import Timing

Row = dict[str, Any]
TRANSPORTS = {"nvlink": {}, "shm": {"NCCL_P2P_DISABLE": "1"}, "socket": {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_NET": "Socket"}}
"""Settings that leave NCCL one way between the GPUs of a machine (the network that it takes by itself may be InfiniBand)."""
SIZES_BYTES = {"cpu": tuple(4**power for power in range(4, 13)), "cuda": tuple(4**power for power in range(5, 15))}
"""Less what is left over when every rank gets an equal part of a buffer of bf16. Many, since links are fitted to every other size."""


COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
PING_PONG = "ping_pong_round_trip"
"""There and back between the two of a group of two."""
CALLS = 5
"""Of a repeat, one after another."""


def group_sizes(ranks: int) -> list[int]:
    """Powers of two up to all ranks, and all of them."""
    return sorted({2**power for power in range(1, ranks.bit_length()) if 2**power <= ranks} | {ranks})


def collective_rows(device: str, ranks: int, repeats: int) -> list[Row]:
    """Rows of every transport: of each collective, size and group size; ``ranks`` processes are started once for each transport."""
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
    rows: list[Row] = []
    for members in group_sizes(ranks):
        group = dist.new_group(list(range(members)))
        if rank < members:
            rows += _group_rows(members, group, device, repeats, transport)
        dist.barrier()
    if rank == 0:
        results.put(rows)
    dist.barrier()
    dist.destroy_process_group()


def _group_rows(members: int, group: "dist.ProcessGroup", device: str, repeats: int, transport: str) -> list[Row]:
    rows = []
    for size in (size - size % (2 * members) for size in SIZES_BYTES[device]):
        for name in (*COLLECTIVES, *([PING_PONG] if members == 2 else [])):
            timing = _timed(_work(name, size, members, group, device), group, device, repeats)
            repeats_us = [seconds * 1e6 for seconds in timing.repeats_s]
            row = {"kind": "collective", "op": name, "bytes": size, "ranks": members, "transport": transport, "us": timing.median_s * 1e6}
            rows.append(row | {"repeats_us": repeats_us, "outliers": timing.outliers, "issued": timing.issued})
    return rows


def _work(name: str, size: int, members: int, group: "dist.ProcessGroup", device: str) -> Callable[[], object]:
    """``size``: bytes of the whole buffer: the output of all-gather, the input of the others; bf16."""
    whole, part = (torch.ones(size // 2 // share, dtype=torch.bfloat16, device=device) for share in (1, members))
    other = torch.empty_like(whole)
    calls: dict[str, Callable[[], object]] = {
        "all_reduce": lambda: dist.all_reduce(whole, group=group),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part, group=group),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole, group=group),
        "all_to_all": lambda: dist.all_to_all_single(other, whole, group=group),
        "broadcast": lambda: dist.broadcast(whole, 0, group=group),
        PING_PONG: lambda: _there_and_back(whole, group),
    }
    return calls[name]


def _there_and_back(buffer: Tensor, group: "dist.ProcessGroup") -> None:
    rank = dist.get_rank()
    for turn in (0, 1):
        if rank == turn:
            dist.send(buffer, 1 - rank, group=group)
        else:
            dist.recv(buffer, 1 - rank, group=group)


def _timed(work: Callable[[], object], group: "dist.ProcessGroup", device: str, repeats: int) -> Timing:
    """One call, the slowest rank's, repeat by repeat."""
    work()
    found = []
    for _ in range(repeats):
        dist.barrier(group)
        begin = time.perf_counter()
        for _ in range(CALLS):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds: Tensor = torch.tensor([(time.perf_counter() - begin) / CALLS], device=device)
        dist.all_reduce(seconds, dist.ReduceOp.MAX, group=group)
        found.append(float(seconds))
    return Timing(found, CALLS)
