"""``failures``: which single failure of the fabric costs a step most."""

from typing import Annotated, Any

import typer

from configuration.command import emit
from configuration.overrides import parse_single
from simulator.commands import options
from simulator.question import KINDS, ask
from simulator.units import show_seconds


def failures(
    model: options.Model,
    fabric: options.Fabric,
    plan: options.PlanName = None,
    device: options.Device = None,
    gpus: options.Gpus = None,
    load: options.Load = None,
    settings: options.Settings = [],  # noqa: B006
    most: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 12,
    json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Take away each inner switch and each link between switches in turn: which single failure costs a training step most.

    Example: python -m simulator failures --model olmoe-1b-7b --fabric spine-leaf
    """
    from simulator.failures import single_failures

    question = ask(model, fabric, plan, device, gpus, parse_single(settings, KINDS), load=load)
    answer = single_failures(question)
    emit(answer.model_dump(mode="json"), as_json=json, output=output, show=lambda console: _show(console, answer, most))


def _show(console: Any, answer: Any, most: int) -> None:
    from rich.table import Table

    table = Table("down", "step", "times the healthy step")
    for failure in answer.failures[:most]:
        cut_off = failure.step_s is None
        table.add_row(failure.name, "ranks are cut off" if cut_off else show_seconds(failure.step_s), "" if cut_off else f"{failure.slowdown:.3f}")
    console.print(table)
    console.print(f"healthy step {show_seconds(answer.healthy_step_s)}; {len(answer.failures)} single failures tried")
