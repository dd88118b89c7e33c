"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Optional

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="Model: a preset (see 'list'), a YAML file, or a Hugging Face config.json.")]
Fabric = Annotated[str, typer.Option("--fabric", "-f", help="Fabric: a preset of 'python -m fabrics list' or a YAML file.")]
PlanName = Annotated[Optional[str], typer.Option("--plan", "-p", help="Plan: a preset or a YAML file; left out, defaults are taken and printed.")]  # noqa: UP045
Device = Annotated[Optional[str], typer.Option("--device", "-d", help="Device: a preset or a YAML file; left out, the fabric's.")]  # noqa: UP045
Gpus = Annotated[Optional[int], typer.Option("--gpus", "-g", min=1, help="Ranks, on the fabric's first endpoints; left out, all of them.")]  # noqa: UP045
Settings = Annotated[list[str], typer.Option("--set", "-s", help="Set any field of model, plan, device, fabric or load: --set plan.micro_batch=4.")]
Load = Annotated[
    str | None,
    typer.Option("--load", help="Tokens over experts: uniform, zipf, worst, a YAML file, a measured JSON; default uniform."),
]
Fail = Annotated[list[str], typer.Option("--fail", help="A switch or link that is down: spine1, leaf0:spine0. Repeatable.")]
Slow = Annotated[list[str], typer.Option("--slow", help="A link at a share of its rate: leaf0:spine0=0.5. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Output = Annotated[Optional[Path], typer.Option("--output", "-o", help="Also write the JSON document to this file.")]  # noqa: UP045
