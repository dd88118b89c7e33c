"""Measured StepReports, and the model and plan that they are of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from configuration.errors import ConfigurationError
from configuration.spec import validated
from simulator.comparison import load_report
from simulator.records.step_report import StepReport
from simulator.specs import ModelSpec, Plan


@dataclass(frozen=True)
class MeasuredStep:
    """A measured report with the model and plan that were run. ``yardstick_share``: what its seconds were multiplied by."""

    path: Path
    report: StepReport
    model: ModelSpec
    plan: Plan
    yardstick_share: float = 1.0

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def load_steps(paths: Iterable[Path]) -> list[MeasuredStep]:
    """Read measured reports; a folder stands for all reports in it. Raises ConfigurationError in one line."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise ConfigurationError(f"{path}: no *.json in this folder (expected StepReports of 'python -m trainer measure')")
        files += found
    return [_load(path) for path in files]


def in_quiet_time(steps: Sequence[MeasuredStep], beside: Sequence[MeasuredStep] = ()) -> list[MeasuredStep]:
    """Steps with their seconds times the yardstick's rate over its best rate, here or in ``beside``.

    The yardstick is a matrix product between the repeats: where other work held the machine, it ran slower by about as much as
    the step. Steps without one are kept as they are.
    """
    best = max((step.report.provenance.yardstick_flops_per_s or 0.0 for step in (*steps, *beside)), default=0.0)
    return [replace(step, report=_scaled(step.report, share), yardstick_share=share) for step in steps for share in (_share(step, best),)]


def _share(step: MeasuredStep, best: float) -> float:
    rate = step.report.provenance.yardstick_flops_per_s
    return 1.0 if rate is None or not best else rate / best


def _scaled(report: StepReport, share: float) -> StepReport:
    """The report with all seconds of its step times ``share``."""
    time = report.time
    totals = {field: getattr(time, field) * share for field in type(time).model_fields if field.endswith("_s") and field != "repeats_s"}
    rows = [row.model_copy(update={"time_s": row.time_s * share}) for row in time.rows]
    repeats_s = [seconds * share for seconds in time.repeats_s]
    return report.model_copy(update={"time": time.model_copy(update=totals | {"rows": rows, "repeats_s": repeats_s})})


def _load(path: Path) -> MeasuredStep:
    report = load_report(path)
    if report.kind != "measured":
        raise ConfigurationError(f"{path}: kind is {report.kind!r} (legal: measured); a profile is held against measurements only")
    if not report.time.rows or not report.time.step_s:
        raise ConfigurationError(f"{path}: time.rows: no measured time")
    model = validated(ModelSpec, report.model_specification, f"{path}: model_specification")
    if (model.parameters, model.active_parameters) != (report.parameters, report.active_parameters):
        raise ConfigurationError(f"{path}: model_specification is of {model.parameters:,} parameters, the report has {report.parameters:,}")
    return MeasuredStep(path, report, model, validated(Plan, report.plan, f"{path}: plan"))
