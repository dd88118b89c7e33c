"""``list`` and ``show``: the presets of models, plans, devices and expert loads."""

from typing import Annotated, Any

import typer

from configuration.command import stdout, to_json
from configuration.files import PresetFolder
from configuration.presets import preset_text
from configuration.presets import schema as json_schema
from simulator.commands import options
from simulator.specs.presets import DEVICES, LOADS, MODELS, PLANS, load_model

FOLDERS: dict[str, PresetFolder[Any]] = {"model": MODELS, "plan": PLANS, "device": DEVICES, "load": LOADS}


def list_presets(json: options.Json = False) -> None:
    """List the presets of models, plans, devices and expert loads.

    Example: python -m simulator list
    """
    from rich.table import Table

    if json:
        typer.echo(to_json({"schema_version": 1} | {f"{kind}s": folder.names() for kind, folder in FOLDERS.items()}), nl=False)
        return
    table = Table("kind", "name", "parameters", "active", "what")
    for name in MODELS.names():
        model = load_model(name)
        table.add_row("model", name, f"{model.parameters / 1e6:,.1f} M", f"{model.active_parameters / 1e6:,.1f} M", model.source)
    for name in PLANS.names():
        table.add_row("plan", name, "", "", "")
    for name in DEVICES.names():
        device = DEVICES.load(name)
        table.add_row("device", name, "", "", device.source + (f"; fitted on {device.machine}" if device.machine else ""))
    for name in LOADS.names():
        table.add_row("load", name, "", "", LOADS.load(name).text)
    stdout().print(table)


def show(
    name: Annotated[str, typer.Argument(help="A preset's name, or with --schema a kind: model, plan, device or load.")],
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a kind of specification, for editors.")] = False,
) -> None:
    """Print a preset as YAML to edit, or the JSON schema of a kind of specification.

    Examples: python -m simulator show tiny-moe; python -m simulator show plan --schema
    """
    typer.echo(to_json(json_schema(name, FOLDERS)) if schema else preset_text(name, FOLDERS), nl=False)
