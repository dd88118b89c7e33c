"""``python -m calibration scaling``: fit scaling laws to a run table and ask them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configuration.command import CheckMissedError, emit, new_app
from configuration.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

scaling_app = new_app("Scaling laws: loss against parameters, tokens and experts, fitted to a table of runs.")


@scaling_app.callback()
def _scaling() -> None:
    """Scaling laws: loss against parameters, tokens and experts, fitted to a table of runs."""


@scaling_app.command("fit", epilog="Example: python -m calibration scaling fit --runs runs.csv --law chinchilla")
def fit_command(
    runs: Annotated[Path, typer.Option(help="Run table (CSV).")],
    law: Annotated[str, typer.Option(help="Law to fit.")] = "chinchilla",
    columns: Annotated[str | None, typer.Option(help="Columns of a foreign table: n=..,d=..,loss=.. (also c, e, u, total, run, any field).")] = None,
    holdout_above: Annotated[float | None, typer.Option(metavar="FLOPS", help="Keep runs of more training FLOPs out of the fit, to test it.")] = None,
    delta: Annotated[float, typer.Option(help="Huber's delta on the log loss; 'inf' is least squares.")] = 1e-3,
    count: Annotated[str, typer.Option(help="What N counts: active, active-non-embedding or total parameters.")] = "active",
    tokens_per_parameter: Annotated[str, typer.Option(metavar="LOW,HIGH", help="Runs outside this band of D/N do not enter the fit.")] = "0.41,1000",
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap refits.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random starts and of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON document to this file.")] = None,
) -> None:
    """Fit a law to a run table: coefficients with intervals, the certificate of the optimum, and the verdict."""
    from calibration.scaling.bootstrap import bootstrap
    from calibration.scaling.document import fit_document
    from calibration.scaling.fit import FitError, fit
    from calibration.scaling.gates import Gates, gated
    from calibration.scaling.laws import fitted_law_named
    from calibration.scaling.objective import Objective
    from calibration.scaling.points import points_of
    from calibration.scaling.verdict import verdict_at
    from simulator.records.run_table import parse_columns, read_table

    chosen = fitted_law_named(law)
    if not delta > 0:
        raise ConfigurationError(f"--delta: expected a positive number, got {delta}")
    table = read_table(runs, parse_columns(columns) if columns else None)
    kept, excluded = gated(table.rows, Gates(tokens_per_parameter=_band(tokens_per_parameter)))
    try:
        points = points_of(kept, count)
        below = points.log_c <= _log(holdout_above)
        fitted = fit(points.take(below), chosen, Objective(delta), seed=seed)
    except FitError as error:
        raise CheckMissedError(f"{runs}: {error}") from None
    ensemble = bootstrap(fitted, resamples=resamples, seed=seed)
    largest = points.take([int(points.log_c.argmax())])
    verdict = verdict_at(fitted, ensemble, largest)
    document = fit_document(fitted, ensemble, verdict, excluded, table.notes)
    emit(document, as_json=as_json, output=output, show=lambda console: _show_fit(console, document))


def _log(flops: float | None) -> float:
    import math

    if flops is None:
        return math.inf
    if not flops > 0:
        raise ConfigurationError(f"--holdout-above: expected a positive number of FLOPs, got {flops}")
    return math.log(flops)


def _band(text: str) -> tuple[float, float]:
    low, _, high = text.partition(",")
    try:
        band = (float(low), float(high))
    except ValueError:
        band = (1.0, 0.0)
    if not 0 <= band[0] < band[1]:
        raise ConfigurationError(f"--tokens-per-parameter {text!r}: expected LOW,HIGH with LOW below HIGH, for one 3,300")
    return band


def _show_fit(console: "Console", document: dict[str, Any]) -> None:
    from rich.table import Table

    intervals = document["intervals"]
    table = Table(title=document["law"]["formula"])
    for header in ("coefficient", "value", f"{intervals['level']:.0%} interval"):
        table.add_column(header, justify="left" if header == "coefficient" else "right")
    for name, value in document["coefficients"].items():
        low, high = intervals["coefficients"][name]
        table.add_row(name, f"{value:.7g}", f"{low:.4g} to {high:.4g}")
    console.print(table)
    rows, certificate = document["rows"], document["certificate"]
    console.print(f"{rows['fitted']} rows fitted, {len(rows['excluded'])} excluded; {intervals['method']}, {intervals['resamples']} refits")
    for exclusion in rows["excluded"]:
        console.print(f"  excluded {exclusion['run']}: {exclusion['reason']}")
    for note in document["notes"]:
        console.print(f"  note: {note}")
    console.print(
        f"objective {document['objective']['value']:.10g} ({document['objective']['kind']}); {certificate['share_at_optimum']:.0%} of "
        f"{certificate['starts']} starts end there, gradient {certificate['steepness']:.1e}, condition number {certificate['condition_number']:.0f}"
    )
    console.print(document["verdict"]["words"])
