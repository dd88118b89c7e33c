"""``python -m calibration fit-links``: a fabric of two endpoints from collectives measured on them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from configuration.command import emit

if TYPE_CHECKING:
    from rich.console import Console


def fit_links(
    measurements: Annotated[Path, typer.Argument(help="Document of 'trainer bench --suite device', or rows as JSON lines.", show_default=False)],
    transport: Annotated[Literal["nvlink", "shm", "socket", "gloo"], typer.Option("--transport", help="Which of the measured ones.")],
    name: Annotated[str, typer.Option("--name", help="Name of the fabric.")],
    device: Annotated[str, typer.Option("--device", help="Device of its endpoints.")],
    least: Annotated[bool, typer.Option("--least", help="Take the shortest of the repeats instead of the median: for a machine that does other work.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the fabric (YAML) to this file.")] = None,
) -> None:
    """Fit overheads and rates of a link to collectives of two endpoints, on every other size, and write them as a fabric.

    Example: [bold]python -m calibration fit-links bench.json --transport gloo --name two-processes --device cpu -o two-processes.yaml[/bold]
    """
    import numpy as np
    import yaml

    from configuration.files import write_atomically
    from fabrics.measurements import fit, read, score
    from simulator.specs.presets import DEVICES

    DEVICES.load(device)
    measured = read(measurements, transport, least=least)
    profile = fit(measured, name, f"{measurements.name}: two endpoints, {transport}, every other size, {'least' if least else 'median'} of the repeats")
    spec = measured[0].fabric.spec.model_copy(
        update={"name": name, "about": f"two endpoints, collectives over {transport} as measured", "device": device, "link_profile": profile, "sources": {}}
    )
    if output is not None:
        write_atomically(output, yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True), sort_keys=False, width=160))
    errors = {collective: np.abs(found) for collective, found in score(measured, profile).items()}
    document = {
        "schema_version": 1,
        "fabric": spec.model_dump(mode="json"),
        "errors": {collective: {"median": float(np.median(found)), "worst": float(found.max()), "sizes": len(found)} for collective, found in errors.items()},
    }
    emit(document, as_json=as_json, output=None, show=lambda console: _show(console, document))


def _show(console: "Console", document: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("collective", "sizes left out", "median error", "worst", title=f"{document['fabric']['name']}: fitted on every other size")
    for collective, error in document["errors"].items():
        table.add_row(collective, str(error["sizes"]), f"{error['median']:.1%}", f"{error['worst']:.1%}")
    console.print(table)
