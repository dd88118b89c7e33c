"""``inspect`` on the command line: parses and prints."""

from pathlib import Path
from typing import Annotated

import typer

from configuration.command import emit, stderr


def inspect(
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Checkpoint folder, run folder or name of a run; default: the newest of all runs.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Text of the attention maps; default: the beginning of the validation data.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Validation tokens to take, from the first on; default: all.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for inspection.json and the figures; default: inspection/STEP in the run's folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON document instead of the tables.")] = False,
) -> None:
    """Look into a trained model: attention maps, load of the experts, loss by position in the sequence.

    Example: [bold]python -m trainer inspect --text "In the beginning God created the heaven and the earth." -o looks[/bold]
    """
    from trainer.checkpoints import find_checkpoint
    from trainer.inspection.inspection import check_folder, default_folder, inspect_checkpoint, write_inspection
    from trainer.inspection.table import show_inspection

    console = stderr()

    def log(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    found = find_checkpoint(checkpoint)
    folder = output or default_folder(found)
    check_folder(folder)
    log(f"{found.experiment.model.name} after {found.step:,} steps, {found.folder}")
    inspection = inspect_checkpoint(found, text, tokens, log)
    files = write_inspection(inspection, folder)
    emit(inspection.as_dict(), as_json=as_json, output=None, show=lambda out: show_inspection(inspection, out))
    log(f"{len(files)} files in {folder}: {', '.join(file.name for file in files)}")
