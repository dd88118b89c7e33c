"""Train every run of a sweep that its table does not hold yet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from simulator.records.run_table import RunRow, append_row, read_rows
from simulator.specs.flops import executed_flops_per_token
from trainer.generation import Sampling, generate
from trainer.loop.run import train
from trainer.sweep.grid import Point
from trainer.sweep.row import row_of

SAMPLE_TOKENS = 128
SAMPLE_PROMPT = "And "


def missing(points: Sequence[Point], table: Path) -> list[Point]:
    """The points without a row in ``table``."""
    done = {row.run for row in read_rows(table)} if table.exists() else set()
    return [point for point in points if point.name not in done]


def sweep(points: Sequence[Point], table: Path, folder: Path, log: Callable[[str], None]) -> list[RunRow]:
    """Run what is missing, the rows appended as they come. ``folder``: where the runs lie, each resumed where it was interrupted.

    A run's checkpoints are removed once its row is written; its log stays.
    """
    waiting = missing(points, table)
    total = sum(work(point) for point in waiting)
    spent, began = 0.0, perf_counter()
    rows = []
    for position, point in enumerate(waiting):
        left = (perf_counter() - began) * (total - spent) / spent if spent else None
        log(f"run {position + 1} of {len(waiting)}: {point.described or point.name}" + (f", about {left / 60:.0f} min left" if left is not None else ""))
        row = _one(point, folder / point.name, log)
        append_row(table, row)
        rows.append(row)
        _discard_checkpoints(folder / point.name)
        spent += work(point)
    return rows


def work(point: Point) -> float:
    """FLOPs of a run."""
    experiment = point.experiment
    return experiment.steps * experiment.plan.tokens_per_step * executed_flops_per_token(experiment.model, experiment.plan.sequence)


def _one(point: Point, run_folder: Path, log: Callable[[str], None]) -> RunRow:
    result = train(point.experiment, run_folder=run_folder, log=log, resume=run_folder.exists())
    sample = generate(
        result.model, result.data.tokenizer, SAMPLE_PROMPT, tokens=SAMPLE_TOKENS,
        sampling=Sampling(seed=point.experiment.training.seed), begin_token=point.experiment.data.begin_token,
    )  # fmt: skip
    return row_of(point, result, sample)


def _discard_checkpoints(run_folder: Path) -> None:
    import shutil

    shutil.rmtree(run_folder / "checkpoints", ignore_errors=True)
