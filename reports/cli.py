"""Command line of the reports: one command a page."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from configuration.command import new_app

app = new_app("Pages that read files and draw: one offline HTML file with its figures as PNG beside it.")

Output = Annotated[Optional[Path], typer.Option("--output", "-o", help="Folder for the page and its figures; left out, reports-out/NAME.")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document: verdicts and files.")]


@app.command("step")
def step_command(
    predicted: Annotated[Path, typer.Option(help="A predicted StepReport (python -m simulator predict -o FILE).")],
    measured: Annotated[Optional[Path], typer.Option(help="A measured StepReport to lay beside it (python -m trainer measure -o FILE).")] = None,  # noqa: UP045
    output: Output = None,
    json: Json = False,
) -> None:
    """Memory and time of one training step, predicted beside measured.

    Example: python -m reports step --predicted p.json --measured m.json
    """
    from reports.publish import publish
    from reports.step.build import build

    publish(build(predicted, measured), output, as_json=json)


@app.command("fabric")
def fabric_command(
    models: Annotated[
        str, typer.Option(help="Models, with commas between: presets, YAML files or Hugging Face config.json.")
    ] = "olmoe-1b-7b,mixtral-8x7b,llama-3-8b,tiny-moe",
    fabric: Annotated[str, typer.Option("--fabric", "-f", help="Fabric: a preset of 'python -m fabrics list' or a YAML file.")] = "spine-leaf",
    settings: Annotated[list[str], typer.Option("--set", "-s", help="Set any field of model, plan, device or fabric: --set plan.micro_batch=4.")] = [],  # noqa: B006
    output: Output = None,
    json: Json = False,
) -> None:
    """What a fabric's parameters do to training: oversubscription, latency per hop, link rate, spines, accelerators per node, expert-parallel degree.

    Maps over two of them show where network, host, memory traffic or arithmetic holds the step back. By default a fine-grained MoE, a coarse one
    and a dense model are compared.

    Example: python -m reports fabric --models tiny-moe,mixtral-8x7b --fabric spine-leaf
    """
    from configuration.overrides import parse_single
    from reports.fabric.build import build
    from reports.publish import publish
    from simulator.question import KINDS

    publish(build(models.split(","), fabric, parse_single(settings, KINDS)), output, as_json=json)


@app.command("scaling")
def scaling_command(
    runs: Annotated[Path, typer.Option(help="Run table (CSV), for one of python -m trainer sweep.")],
    logs: Annotated[Optional[Path], typer.Option(help="Folder that holds the runs' folders, whose logs give loss curves.")] = None,  # noqa: UP045
    law: Annotated[str, typer.Option(help="Law to fit; 'auto' takes the one that foretells best.")] = "chinchilla",
    count: Annotated[str, typer.Option(help="What N counts: active, active-non-embedding or total parameters.")] = "active",
    columns: Annotated[Optional[str], typer.Option(help="Columns of a foreign table: n=..,d=..,loss=..")] = None,  # noqa: UP045
    holdout_above: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="FLOPS", help="Keep runs of more training FLOPs out of the fit, and mark them."),
    ] = None,
    prior: Annotated[Optional[list[str]], typer.Option(help="Normal prior NAME=MEAN:SD on a coefficient, as for 'scaling fit'; repeatable.")] = None,  # noqa: UP045
    output: Output = None,
    json: Json = False,
) -> None:
    """Loss against parameters and tokens: local slopes, the fitted law, and what to scale next.

    Example: python -m reports scaling --runs runs.csv --logs runs
    """
    from reports.publish import publish
    from reports.scaling.build import build

    publish(build(runs, logs, law, count, columns, holdout_above, prior or ()), output, as_json=json)


@app.command("calibration")
def calibration_command(
    reports: Annotated[list[Path], typer.Argument(help="Measured StepReports, or folders of them, that the profile has not seen.", show_default=False)],
    device: Annotated[str, typer.Option("--device", "-d", help="Device profile: a file or a preset.")],
    fitted_on: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="StepReports (or a folder) that it was fitted to: draws one FLOP rate fitted to the same. Repeatable."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Take measured seconds as they are, without the yardstick's correction for other work.")] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """How wrong a device profile is: predicted against measured steps.

    Example: python -m reports calibration --device cpu held-out/ --fitted-on fit/
    """
    from reports.calibration.build import build
    from reports.publish import publish

    publish(build(device, reports, fitted_on or [], raw=raw), output, as_json=json)
