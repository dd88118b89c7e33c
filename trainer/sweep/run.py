"""Train every run of a sweep that its table does not hold yet."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from simulator.records.run_table import RunRow, append_row, read_rows
from trainer.generation import Sampling, generate
from trainer.loop.run import RunResult
from trainer.sweep.grid import Point
from trainer.sweep.row import row_of
from trainer.sweep.trunk import Trunk, train_trunk, trunks

SAMPLE_TOKENS = 128
SAMPLE_PROMPT = "And "


def missing(points: Sequence[Point], table: Path) -> list[Point]:
    """The points without a row in ``table``."""
    done = {row.run for row in read_rows(table)} if table.exists() else set()
    return [point for point in points if point.name not in done]


def sweep(points: Sequence[Point], table: Path, folder: Path, log: Callable[[str], None], *, deadline_s: float | None = None) -> list[RunRow]:
    """Run what is missing, the rows appended as they come; nothing is begun or gone on with after ``deadline_s`` (Unix time).

    ``folder``: where the runs lie, each resumed where it was interrupted. The checkpoints of a trunk are removed once its rows are written; logs stay.
    """
    waiting = {point.name for point in missing(points, table)}
    groups = [trunk for trunk in trunks(points) if waiting & {point.name for point in trunk.branches}]
    total = sum(trunk.flops for trunk in groups)
    spent, began = 0.0, time.perf_counter()
    rows: list[RunRow] = []
    for position, trunk in enumerate(groups):
        if is_late(deadline_s):
            log(f"time is up: {len(groups) - position} of {len(groups)} trunks are not begun")
            break
        left = (time.perf_counter() - began) * (total - spent) / spent if spent else None
        log(f"run {position + 1} of {len(groups)}: {described(trunk)}" + (f", about {left / 60:.0f} min left" if left is not None else ""))
        rows += run_trunk(trunk, table, folder, log, deadline_s)
        spent += trunk.flops
    return rows


def run_trunk(trunk: Trunk, table: Path, folder: Path, log: Callable[[str], None], deadline_s: float | None) -> list[RunRow]:
    """Train the runs of one trunk that ``table`` lacks and append their rows."""
    rows: list[RunRow] = []

    def finished(point: Point, result: RunResult) -> None:
        parent = None if point is trunk.branches[-1] else trunk.name
        rows.append(_row(point, result, parent))
        append_row(table, rows[-1])

    if train_trunk(trunk, missing(trunk.branches, table), folder, log, finished, lambda: is_late(deadline_s)):
        _discard_checkpoints(folder / trunk.name)
    return rows


def is_late(deadline_s: float | None) -> bool:
    """Whether the Unix time ``deadline_s`` has come."""
    return deadline_s is not None and time.time() >= deadline_s


def described(trunk: Trunk) -> str:
    """A trunk in words."""
    *shorter, longest = trunk.branches
    return (longest.described or longest.name) + (f" and {len(shorter)} shorter" if shorter else "")


def _row(point: Point, result: RunResult, parent: str | None) -> RunRow:
    sample = generate(
        result.model, result.data.tokenizer, SAMPLE_PROMPT, tokens=SAMPLE_TOKENS,
        sampling=Sampling(seed=point.experiment.training.seed), begin_token=bool(point.experiment.data.begin_token),
    )  # fmt: skip
    return row_of(point, result, sample, parent)


def _discard_checkpoints(run_folder: Path) -> None:
    import shutil

    shutil.rmtree(run_folder / "checkpoints", ignore_errors=True)
