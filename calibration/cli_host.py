"""``python -m calibration fit-host``: the host time of an operation from steps that wait for their host."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configuration.command import emit

if TYPE_CHECKING:
    from rich.console import Console


def fit_host(
    reports: Annotated[list[Path], typer.Argument(help="StepReports of small models measured on the device, or folders of them.", show_default=False)],
    device: Annotated[str, typer.Option("--device", help="Device (preset or file) whose other constants are kept.")],
    name: Annotated[str, typer.Option("--name", help="Name of the profile.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the profile (YAML) to this file.")] = None,
) -> None:
    """Fit what a host needs to issue an operation to whole steps, in which autograd and modules come on top of the call.

    Example: [bold]python -m calibration fit-host tiny-moe.json --device h100-sxm-80gb --name my-h100 -o my-h100.yaml[/bold]
    """
    from calibration.device.host import fit_host as solve
    from calibration.device.host import with_host_time
    from calibration.device.profile import to_yaml
    from calibration.device.reports import load_steps
    from configuration.files import write_atomically
    from simulator.specs.presets import DEVICES

    base, steps = DEVICES.load(device), load_steps(reports)
    found = solve(base, steps)
    reference = f"steps of {', '.join(step.name for step in steps)} as measured on {steps[0].report.provenance.device}"
    profile = with_host_time(base, found.seconds, name, reference, found.standard_error)
    if output is not None:
        write_atomically(output, to_yaml(profile))
    document = {"schema_version": 1, "device": profile.model_dump(mode="json"), "host_overhead_s_by_step": found.by_step, "base_s": base.host_overhead_s.value}
    emit(document, as_json=as_json, output=None, show=lambda console: _show(console, document))


def _show(console: "Console", document: dict[str, Any]) -> None:
    from rich.table import Table

    from simulator.units import show_seconds

    table = Table("step", "host time of an operation", title=document["device"]["name"])
    for name, seconds in document["host_overhead_s_by_step"].items():
        table.add_row(name, show_seconds(seconds))
    console.print(table)
    console.print(f"host_overhead_s {show_seconds(document['device']['host_overhead_s']['value'])}, was {show_seconds(document['base_s'])}")
