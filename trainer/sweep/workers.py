"""A sweep on several processes of one machine: each takes the costliest trunk that is left. All GPUs that the sweep sees are dealt to them in turn."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configuration.command import CheckMissedError
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunRow, read_rows
from trainer.data import prepare
from trainer.sweep.grid import Point
from trainer.sweep.run import described, is_late, missing, run_trunk
from trainer.sweep.trunk import Trunk, trunks


def sweep_on(
    processes: int, points: Sequence[Point], table: Path, folder: Path, log: Callable[[str], None], *, threads: int, deadline_s: float | None
) -> list[RunRow]:
    """As ``sweep``, on ``processes`` of ``threads`` each. A trunk that fails leaves the others alone.

    Raises CheckMissedError at the end when any has failed.
    """
    waiting = {point.name for point in missing(points, table)}
    groups = sorted((trunk for trunk in trunks(points) if waiting & {point.name for point in trunk.branches}), key=lambda trunk: -trunk.flops)
    for data, vocabulary in {_data_of(point): (point.experiment.data, point.experiment.model.vocabulary) for point in points}.values():
        # Once, before every process asks for it.
        prepare(data, vocabulary, log)
    context = multiprocessing.get_context("spawn")
    jobs, failures = context.Queue(), context.Queue()
    for job in [*groups, *[None] * processes]:
        jobs.put(job)
    gpus = visible_gpus()
    workers = [
        context.Process(target=_work, args=(jobs, failures, table, folder, threads, deadline_s, gpus[process % len(gpus)] if gpus else None))
        for process in range(processes)
    ]
    log(f"{len(groups)} trunks on {processes} processes" + (f" and {len(gpus)} GPUs" if gpus else ""))
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except BaseException:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        raise
    told = [failures.get() for _ in range(sum(worker.exitcode == 1 for worker in workers))]
    told = [text for texts in told for text in texts] + [f"a process ended with {worker.exitcode}" for worker in workers if worker.exitcode not in (0, 1)]
    rows = [row for row in read_rows(table) if row.run in waiting] if table.exists() else []
    if told:
        raise CheckMissedError(f"{len(rows)} of {len(waiting)} runs were made: {'; '.join(told)}")
    return rows


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES says of each GPU that this process may use."""
    import torch

    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return given[:count] if given else [str(number) for number in range(count)]


def _data_of(point: Point) -> tuple[str, int]:
    return point.experiment.data.model_dump_json(), point.experiment.model.vocabulary


def _work(jobs: Any, failures: Any, table: Path, folder: Path, threads: int, deadline_s: float | None, gpu: str | None) -> None:
    import sys

    import torch

    if gpu is not None:
        # Read when CUDA is first used, which comes later.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    told = []
    while (trunk := jobs.get()) is not None:
        if is_late(deadline_s):
            continue
        fault = _one(trunk, table, folder, deadline_s)
        if fault:
            told.append(fault)
    if told:
        failures.put(told)
        sys.exit(1)


def _one(trunk: Trunk, table: Path, folder: Path, deadline_s: float | None) -> str | None:
    from configuration.command import stderr

    console = stderr()

    def log(text: str) -> None:
        console.print(f"{trunk.name}: {text}", markup=False, soft_wrap=True)

    log(described(trunk))
    try:
        run_trunk(trunk, table, folder, log, deadline_s)
    except (ConfigurationError, CheckMissedError) as error:
        log(str(error))
        return f"{trunk.name}: {error}"
    except Exception as error:
        import traceback

        log(traceback.format_exc())
        return f"{trunk.name}: {type(error).__name__}: {error}"
    return None
