"""``list`` and ``show``: the presets that a run is made of."""

from typing import Annotated, Any

import typer

from configuration.command import stdout, to_json
from configuration.files import PresetFolder
from configuration.presets import preset_text
from configuration.presets import schema as json_schema
from simulator.specs import MODELS, PLANS
from trainer.specs import DATA, TRAINING

FOLDERS: dict[str, PresetFolder[Any]] = {"model": MODELS, "plan": PLANS, "data": DATA, "training": TRAINING}


def list_presets(json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False) -> None:
    """List the presets of models, plans, data and trainings.

    Example: python -m trainer list
    """
    from rich.table import Table

    if json:
        typer.echo(to_json({"schema_version": 1} | {kind: folder.names() for kind, folder in FOLDERS.items()}), nl=False)
        return
    table = Table("kind", "name")
    for kind, folder in FOLDERS.items():
        for name in folder.names():
            table.add_row(kind, name)
    stdout().print(table)


def show(
    name: Annotated[str, typer.Argument(help="A preset's name, or with --schema a kind: model, plan, data or training.")],
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a kind of specification, for editors.")] = False,
) -> None:
    """Print a preset as YAML to edit, or the JSON schema of a kind of specification.

    Examples: python -m trainer show basic; python -m trainer show training --schema
    """
    typer.echo(to_json(json_schema(name, FOLDERS)) if schema else preset_text(name, FOLDERS), nl=False)
