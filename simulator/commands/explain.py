"""``explain``: where a line of the prediction comes from."""

from typing import Annotated, Any, Optional

import typer

from configuration.command import emit
from configuration.errors import ConfigurationError
from configuration.overrides import parse_single
from simulator.commands import options
from simulator.question import KINDS, ask
from simulator.units import show_bytes, show_seconds


def explain(
    model: options.Model,
    fabric: options.Fabric,
    line: Annotated[Optional[str], typer.Argument(help="A line such as memory.activations.experts or time.forward; left out, all are listed.")] = None,  # noqa: UP045
    plan: options.PlanName = None,
    device: options.Device = None,
    gpus: options.Gpus = None,
    load: options.Load = None,
    settings: options.Settings = [],  # noqa: B006
    fail: options.Fail = [],  # noqa: B006
    slow: options.Slow = [],  # noqa: B006
    worst_failure: Annotated[bool, typer.Option("--worst-failure", help="Explain the network, and find the single failure that costs a step most.")] = False,
    json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Explain one line of a prediction: formula with symbolic shapes, inputs, and the source of every constant.

    The line network says which parallel group uses which tier of the fabric, what share of the step it exposes, and what other fabrics would change.

    Example: python -m simulator explain memory.activations --model tiny-moe --fabric spine-leaf
    """
    from simulator.explanation import explain as explained
    from simulator.explanation import lines

    question = ask(model, fabric, plan, device, gpus, parse_single(settings, KINDS), fail=fail, slow=slow, load=load)
    if line == "network" or worst_failure:
        from simulator.commands.network import show
        from simulator.network_explanation import explain_network

        if line not in (None, "network"):
            raise ConfigurationError(f"--worst-failure: is for the line network, not {line}")
        found = explain_network(question, worst_failure=worst_failure)
        emit(found.model_dump(mode="json"), as_json=json, output=output, show=lambda console: show(console, found))
        return
    if line is None:
        names = lines(question.answer())
        emit({"schema_version": 1, "lines": names}, as_json=json, output=output, show=lambda console: console.print("\n".join(names)))
        return
    answer = explained(question, line)
    emit({"schema_version": 1} | answer.model_dump(mode="json"), as_json=json, output=output, show=lambda console: _show(console, answer))


def _show(console: Any, answer: Any) -> None:
    from rich.table import Table

    def form(value: float) -> str:
        if answer.unit == "bytes":
            return show_bytes(value)
        return show_seconds(value) if answer.unit == "s" else f"{value:.4g}"

    table = Table("what", "formula", "count", "comes to", "source")
    for term in sorted(answer.terms, key=lambda term: -term.value):
        table.add_row(term.what, term.formula, str(term.count), form(term.value), term.source)
    table.add_section()
    table.add_row(f"[bold]{answer.line}[/bold]", "", "", form(answer.total) + (f" ({answer.total:,.0f})" if answer.unit == "bytes" else ""), "")
    console.print(table)
    for symbol, meaning in answer.symbols.items():
        console.print(f"  {symbol} = {meaning}")
    for remark in answer.remarks:
        console.print(f"  {remark}", soft_wrap=True)
