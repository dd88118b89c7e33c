"""``sweep``: real training runs over a grid of any fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from configuration.command import emit, stderr

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.sweep.grid import Point


def sweep(
    runs: Annotated[Path, typer.Option(help="Run table (CSV) that gets one row a run; runs that it holds are not trained again.")],
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", "-s", help="A field and its values: --set model.blocks.0.count=1,2,4. Repeatable: a grid."),
    ] = None,
    grid: Annotated[Optional[Path], typer.Option(help="File of grids, for fields that go together; combined with --set.")] = None,  # noqa: UP045
    model: Annotated[str, typer.Option("--model", "-m", help="Model: a preset or a file.")] = "tiny-moe",
    data: Annotated[str, typer.Option("--data", help="Data: a preset or a file.")] = "simple-corpus",
    training: Annotated[str, typer.Option("--training", help="Training: a preset or a file.")] = "basic",
    plan: Annotated[Optional[str], typer.Option("--plan", "-p", help="Plan: a preset or a file; left out, the training's.")] = None,  # noqa: UP045
    folder: Annotated[Optional[Path], typer.Option(help="Where the runs lie; left out, runs/sweep-NAME after the table.")] = None,  # noqa: UP045
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, the costliest first.")] = 1,
    threads: Annotated[Optional[int], typer.Option(min=1, help="CPU threads of PyTorch in each process.")] = None,  # noqa: UP045
    minutes: Annotated[Optional[float], typer.Option(min=0, help="Stop after so long; the next call goes on.")] = None,  # noqa: UP045
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid and what it costs; train nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Train a grid of models and write one row a run into a run table; can be interrupted and called again.

    Runs of a constant schedule with warmup_steps that differ in tokens alone are cooldown branches of one trunk.

    Example: python -m trainer sweep --runs layers.csv --set model.blocks.0.count=1,2,4 --set training.tokens=500000
    """
    import time

    import torch

    from trainer.sweep.grid import points

    deadline_s = None if minutes is None else time.time() + 60 * minutes
    if threads is not None:
        torch.set_num_threads(threads)
    wanted = points(settings or [], model=model, data=data, training=training, plan=plan, cuda=torch.cuda.is_available(), grid_file=grid)
    if dry_run:
        document = {"schema_version": 1, "runs": [_planned(point) for point in wanted], "flops_with_shared_trunks": _flops(wanted)}
        emit(document, as_json=json, output=None, show=lambda console: _show(console, document["runs"]))
        return
    console = stderr()

    def log(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    from trainer.sweep.run import missing

    already = len(wanted) - len(missing(wanted, runs))
    place = folder or Path("runs") / f"sweep-{runs.stem}"
    if processes == 1:
        from trainer.sweep.run import sweep as run_all

        rows = run_all(wanted, runs, place, log, deadline_s=deadline_s)
    else:
        from trainer.sweep.workers import sweep_on

        rows = sweep_on(processes, wanted, runs, place, log, threads=threads or max(1, torch.get_num_threads() // processes), deadline_s=deadline_s)
    document = {"schema_version": 1, "table": str(runs), "trained": [row.model_dump() for row in rows], "already_there": already}
    emit(document, as_json=json, output=None, show=lambda console: _show(console, document["trained"]))


def _flops(points: "Sequence[Point]") -> float:
    from trainer.sweep.trunk import trunks

    return sum(trunk.flops for trunk in trunks(points))


def _planned(point: "Point") -> dict[str, Any]:
    from simulator.specs.flops import executed_flops_per_token

    model = point.experiment.model
    tokens = point.experiment.steps * point.experiment.plan.tokens_per_step
    return {
        "run": point.name,
        "total_parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "tokens": tokens,
        "training_flops": tokens * executed_flops_per_token(model, point.experiment.plan.sequence),
    }


def _show(console: "Console", rows: Any) -> None:
    from rich.table import Table

    from simulator.units import show_count

    table = Table("run", "parameters", "active", "tokens", "FLOPs", "validation loss, nats/token", "bits per byte", "repeated 4-grams")
    for row in rows:
        loss, error = row.get("validation_loss_nats_per_token"), row.get("validation_loss_standard_error_nats_per_token")
        table.add_row(
            row["run"],
            *(show_count(row[name]) for name in ("total_parameters", "active_parameters", "tokens", "training_flops")),
            "" if loss is None else f"{loss:.4f}" + (f" ± {error:.4f}" if error is not None else ""),
            f"{row['bits_per_byte']:.3f}" if row.get("bits_per_byte") else "",
            f"{row['repeated_4gram_share']:.1%}" if row.get("repeated_4gram_share") is not None else "",
        )
    console.print(table)
