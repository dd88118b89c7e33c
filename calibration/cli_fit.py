"""``python -m calibration fit`` and ``validate``: device profiles from measurements, and how well they predict."""

from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configuration.command import CheckMissedError, emit
from configuration.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from calibration.device.validation import Validation

NOTABLE = 0.95
"""Share of the yardstick's best rate below which a report is said to be disturbed."""

SINGLE_CONSTANTS = (
    "irregular_bytes_per_s", "backward_bytes_per_s", "scores_per_s", "backward_scores_per_s", "launch_overhead_s", "product_overhead_s",
)  # fmt: skip
"""Constants of a kind of kernels that it may lack, in the order in which they are shown."""

Raw = Annotated[
    bool, typer.Option("--raw", help="Take the seconds as measured; otherwise they are multiplied by the yardstick's rate over its best, if other work ran.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def fit(
    reports: Annotated[list[Path] | None, typer.Argument(help="Measured StepReports, or folders of them.", show_default=False)] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the profile.", show_default=False)] = ...,  # type: ignore[assignment]
    probes: Annotated[list[Path] | None, typer.Option("--probes", help="Table of kernels timed alone (JSON lines). Repeatable.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Device (preset or file) whose peaks are kept, and what was not measured.")] = None,
    date: Annotated[str | None, typer.Option("--date", help="Day of the measurements, for the references; default: the newest file's.")] = None,
    raw: Raw = False,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the profile (YAML) to this file.")] = None,
) -> None:
    """Fit a device profile to measured steps and kernels.

    Example: [bold]python -m calibration fit m1.json m2.json --name my-cpu -o my-cpu.yaml[/bold]
    """
    from calibration.device.fit import fit as solve
    from calibration.device.held_out import held_out_errors
    from calibration.device.probes import load_probes
    from calibration.device.profile import build_profile, to_yaml
    from calibration.device.reports import in_quiet_time, load_steps
    from calibration.device.sources import gather
    from configuration.files import write_atomically
    from simulator.specs.presets import DEVICES

    if (reports or probes) is None:
        raise ConfigurationError("fit: give measured StepReports, --probes, or both")
    steps, tables = load_steps(reports or []), [load_probes(path) for path in probes or []]
    steps = steps if raw else in_quiet_time(steps)
    sources = gather(steps, tables, name, date or _day([*(step.path for step in steps), *(table.path for table in tables)]))
    found = solve(sources.observations, sources.own_launches)
    profile = build_profile(found, sources.origin, DEVICES.load(base) if base else None)
    if output is not None:
        write_atomically(output, to_yaml(profile.device))
    document: dict[str, Any] = {
        "schema_version": 1,
        "device": profile.device.model_dump(mode="json"),
        "observations": len(sources.observations),
        "median_absolute_residual": float(median(abs(found.residuals))),
        "held_out": [asdict(error) for error in held_out_errors([o for table in tables for o in table.observations], sources.own_launches)] if tables else [],
        "not_fitted": profile.notes,
        "yardstick_shares": {step.name: step.yardstick_share for step in steps},
        "left_out": sources.left_out,
    }
    emit(document, as_json=as_json, output=None, show=lambda console: _show_fit(console, document))


def _day(paths: list[Path]) -> str:
    from datetime import UTC, datetime

    newest = max((path.stat().st_mtime for path in paths), default=0.0)
    return datetime.fromtimestamp(newest, UTC).date().isoformat()


def _show_fit(console: "Console", document: dict[str, Any]) -> None:
    from rich.table import Table

    device = document["device"]
    table = Table("constant", "value", "standard error", "origin", title=f"{device['name']}: {device['source']}")
    for name, constant in _constants(device):
        error = constant["standard_error"]
        table.add_row(
            name, f"{constant['value']:.4g}", "" if error is None else f"{error / constant['value']:.1%}" if constant["value"] else "", constant["origin"]
        )
    for column in table.columns[1:3]:
        column.justify = "right"
    console.print(table)
    console.print(f"{document['observations']} observations, median absolute residual {document['median_absolute_residual']:.1%}")
    for error in document["held_out"]:
        console.print(
            f"  {error['name']}: fitted on every other kernel, median error {error['median']:.1%}, worst {error['worst']:.0%}, of the {error['count']} others"
        )
    for note in document["not_fitted"]:
        console.print(f"  not fitted: {note}")
    for kind, why in document["left_out"].items():
        console.print(f"  left out: {kind}: {why}")
    slowed = {name: share for name, share in document["yardstick_shares"].items() if share < NOTABLE}
    if slowed:
        console.print("  other work ran; seconds multiplied by the yardstick's share: " + ", ".join(f"{name} {share:.2f}" for name, share in slowed.items()))


def _constants(device: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = [
        (name, device[name]) for name in ("launch_overhead_s", "listed_launch_overhead_s", "host_overhead_s", "exponentials_per_s") if device[name] is not None
    ]
    for kind, rate in device["kernels"].items():
        found.append((f"{kind} bytes_per_s", rate["bytes_per_s"]))
        found += [(f"{kind} {item} {name}", constant) for name in ("flops_per_s", "backward_flops_per_s") for item, constant in rate[name].items()]
        found += [(f"{kind} {name}", rate[name]) for name in SINGLE_CONSTANTS if rate[name] is not None]
    return found


def validate(
    device: Annotated[str, typer.Argument(help="Device profile: file or preset.", show_default=False)],
    reports: Annotated[list[Path], typer.Argument(help="Measured StepReports that it was not fitted to, or folders of them.", show_default=False)],
    fitted_on: Annotated[
        list[Path] | None, typer.Option("--fitted-on", help="StepReports (or a folder) that it was fitted to: compare with one FLOP rate fitted to the same.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when a tolerance is missed.")] = False,
    step_tolerance: Annotated[float, typer.Option(min=0, help="Median error of the step; the repeats' half-spread where that is larger.")] = 0.15,
    phase_tolerance: Annotated[float, typer.Option(min=0, help="Median error of each phase.")] = 0.25,
    advantage: Annotated[float, typer.Option(min=0, help="With --fitted-on: how many times smaller the error must be than that of one FLOP rate.")] = 2.0,
    raw: Raw = False,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON document to this file.")] = None,
) -> None:
    """Predict measured steps with a profile, and compare: step, phases, and the same with a single FLOP rate.

    Example: [bold]python -m calibration validate my-cpu.yaml held-out/ --fitted-on fit/ --check[/bold]
    """
    from calibration.device.reports import in_quiet_time, load_steps
    from calibration.device.validation import validate as hold_against
    from simulator.specs.presets import DEVICES

    profile, steps, others = DEVICES.load(device), load_steps(reports), load_steps(fitted_on or [])
    if not raw:
        steps, others = in_quiet_time(steps, beside=others), in_quiet_time(others, beside=steps)
    found = hold_against(profile, steps, others)
    missed = _missed(found, step_tolerance, phase_tolerance, advantage)
    document = {"schema_version": 1, "device": device} | asdict(found) | {"advantage": found.advantage, "missed": missed}
    emit(document, as_json=as_json, output=output, show=lambda console: _show_validation(console, found, missed))
    if check and missed:
        raise CheckMissedError("; ".join(missed))


def _missed(found: "Validation", step_tolerance: float, phase_tolerance: float, advantage: float) -> list[str]:
    allowed = max(step_tolerance, found.median_half_spread)
    missed = [f"median error of the step is {found.median_step:.1%}, allowed {allowed:.1%}"] if found.median_step > allowed else []
    missed += [
        f"median error of the {phase} phase is {error:.1%}, allowed {phase_tolerance:.1%}"
        for phase, error in found.median_phases.items()
        if error > phase_tolerance
    ]
    if found.advantage is not None and found.advantage < advantage:
        missed.append(f"the error is {found.advantage:.2f} times smaller than that of a single FLOP rate, expected {advantage:g}")
    return missed


def _show_validation(console: "Console", found: "Validation", missed: list[str]) -> None:
    from rich.table import Table

    from simulator.units import show_seconds

    table = Table("step", "yardstick", "measured", "predicted", "error", "forward", "backward", "optimizer", "half-spread", "one FLOP rate")
    for error in found.steps:
        table.add_row(
            error.name, f"{error.yardstick_share:.0%}", show_seconds(error.measured_s), show_seconds(error.predicted_s), f"{error.step:+.1%}",
            *(f"{error.phases[phase]:+.1%}" for phase in found.median_phases),
            f"±{error.half_spread:.1%}", "" if error.single_rate is None else f"{error.single_rate:+.1%}",
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "median, absolute", "", "", "", f"{found.median_step:.1%}", *(f"{value:.1%}" for value in found.median_phases.values()),
        f"±{found.median_half_spread:.1%}", "" if found.median_single_rate is None else f"{found.median_single_rate:.1%}",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    console.print(f"{len(found.steps)} steps, the longest {found.span:.1f} times the shortest")
    if found.advantage is not None:
        console.print(f"one FLOP rate: {found.flops_per_s:.4g} FLOP/s; its median error is {found.advantage:.1f} times the profile's")
    for line in missed:
        console.print(f"missed: {line}")
