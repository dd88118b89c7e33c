"""``sweep``: real training runs over a grid of any fields."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from configuration.command import emit, stderr

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.sweep.grid import Point


def sweep(
    settings: Annotated[list[str], typer.Option("--set", "-s", help="A field and its values: --set model.blocks.0.count=1,2,4. Repeatable: a grid.")],
    runs: Annotated[Path, typer.Option(help="Run table (CSV) that gets one row a run; runs that it holds are not trained again.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model: a preset or a file.")] = "tiny-moe",
    data: Annotated[str, typer.Option("--data", help="Data: a preset or a file.")] = "simple-corpus",
    training: Annotated[str, typer.Option("--training", help="Training: a preset or a file.")] = "basic",
    plan: Annotated[Optional[str], typer.Option("--plan", "-p", help="Plan: a preset or a file; left out, the training's.")] = None,  # noqa: UP045
    folder: Annotated[Optional[Path], typer.Option(help="Where the runs lie; left out, runs/sweep-NAME after the table.")] = None,  # noqa: UP045
    threads: Annotated[Optional[int], typer.Option(min=1, help="CPU threads of PyTorch.")] = None,  # noqa: UP045
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid and what it costs; train nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Train a grid of models and write one row a run into a run table; can be interrupted and called again.

    Example: python -m trainer sweep --runs layers.csv --set model.blocks.0.count=1,2,4 --set training.tokens=500000
    """
    import torch

    from trainer.sweep.grid import points

    if threads is not None:
        torch.set_num_threads(threads)
    grid = points(settings, model=model, data=data, training=training, plan=plan, cuda=torch.cuda.is_available())
    if dry_run:
        document = {"schema_version": 1, "runs": [_planned(point) for point in grid]}
        emit(document, as_json=json, output=None, show=lambda console: _show(console, document["runs"]))
        return
    from trainer.sweep.run import sweep as run_all

    console = stderr()
    rows = run_all(grid, runs, folder or Path("runs") / f"sweep-{runs.stem}", lambda text: console.print(text, markup=False, soft_wrap=True))
    document = {"schema_version": 1, "table": str(runs), "trained": [row.model_dump() for row in rows], "already_there": len(grid) - len(rows)}
    emit(document, as_json=json, output=None, show=lambda console: _show(console, document["trained"]))


def _planned(point: "Point") -> dict[str, Any]:
    from trainer.sweep.run import work

    model = point.experiment.model
    return {
        "run": point.name,
        "total_parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "tokens": point.experiment.steps * point.experiment.plan.tokens_per_step,
        "training_flops": work(point),
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
