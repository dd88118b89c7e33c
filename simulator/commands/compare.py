"""``compare``: two StepReports side by side."""

from pathlib import Path
from typing import Annotated

import typer

from configuration.command import emit_text
from simulator.commands import options


def compare(
    first: Annotated[Path, typer.Argument(help="A StepReport, for one predicted.")],
    second: Annotated[Path, typer.Argument(help="Another one, for one measured.")],
    json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Lay two StepReports side by side, joined on component and phase.

    Example: python -m simulator compare predicted.json measured.json
    """
    from simulator.comparison import compare as join
    from simulator.comparison import load_report
    from simulator.tables import comparison_text

    comparison = join(load_report(first), load_report(second))
    emit_text(comparison.model_dump(mode="json"), as_json=json, output=output, text=lambda: comparison_text(comparison))
