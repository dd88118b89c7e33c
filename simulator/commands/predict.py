"""``predict``: memory and time of one training step."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from configuration.command import CheckMissedError, emit_text
from configuration.errors import ConfigurationError
from configuration.overrides import parse_single
from simulator.commands import options
from simulator.question import KINDS, ask


def predict(
    model: options.Model,
    fabric: options.Fabric,
    plan: options.PlanName = None,
    device: options.Device = None,
    gpus: options.Gpus = None,
    load: options.Load = None,
    settings: options.Settings = [],  # noqa: B006
    fail: options.Fail = [],  # noqa: B006
    slow: options.Slow = [],  # noqa: B006
    against: Annotated[Optional[Path], typer.Option(help="A measured StepReport to lay beside the prediction.")] = None,  # noqa: UP045
    check: Annotated[Optional[float], typer.Option(min=0, help="With --against: exit with 1 when the peak differs by more than this share.")] = None,  # noqa: UP045
    json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Predict memory and time of one training step: does it fit, how fast is it, and what holds it back.

    Example: python -m simulator predict --model tiny-moe --fabric spine-leaf
    """
    if check is not None and against is None:
        raise ConfigurationError(f"--check {check}: needs a report to compare with (--against)")
    measured, comparison = None, None
    if against is not None:
        from simulator.comparison import compare, load_report

        measured = load_report(against)

    def text() -> str:
        from simulator.tables import comparison_text, report_text

        return report_text(report) + ("" if comparison is None else "\n\n" + comparison_text(comparison))

    ranks = measured.plan.get("ranks") if measured is not None else None
    question = ask(
        model, fabric, plan, device, gpus, parse_single(settings, KINDS),
        measured_ranks=ranks if isinstance(ranks, int) else None, fail=fail, slow=slow, load=load,
    )  # fmt: skip
    report = question.answer()
    if measured is not None:
        comparison = compare(report, measured)
    document = report.model_dump(mode="json") | ({} if comparison is None else {"comparison": comparison.model_dump(mode="json")})
    emit_text(document, as_json=json, output=output, text=text)
    if check is not None and comparison is not None and abs(comparison.peak.relative) > check:
        raise CheckMissedError(f"peak memory differs by {comparison.peak.relative:+.3%}, allowed {check:.3%}")
