"""A profile held against measured steps, beside the simplest model that could do the same: one FLOP rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from calibration.device.fit import OUTLIER
from calibration.device.reports import MeasuredStep
from fabrics.loading import load_fabric
from simulator.predict import predict
from simulator.records.step_report import StepReport
from simulator.specs.device import DeviceSpec
from simulator.time.communication import Network

PHASES = ("forward", "backward", "optimizer")


@dataclass(frozen=True)
class StepError:
    """One step. Errors are predicted over measured minus one.

    ``half_spread``: half of what lies between the 10th and 90th percentile of the repeats, over their median. ``yardstick_share``:
    what the measured seconds were multiplied by. ``single_rate``: error of the single FLOP rate, where one was fitted.
    """

    name: str
    measured_s: float
    predicted_s: float
    step: float
    phases: dict[str, float]
    half_spread: float
    yardstick_share: float
    single_rate: float | None


@dataclass(frozen=True)
class Validation:
    """Absolute errors, medians over the steps. ``flops_per_s``: the single rate, fitted to the steps that it was given."""

    steps: list[StepError]
    flops_per_s: float | None
    median_step: float
    median_phases: dict[str, float]
    median_half_spread: float
    median_single_rate: float | None
    span: float

    @property
    def advantage(self) -> float | None:
        """How many times smaller the error is than the single rate's."""
        return None if self.median_single_rate is None or not self.median_step else self.median_single_rate / self.median_step


def validate(device: DeviceSpec, steps: Sequence[MeasuredStep], fitted_on: Sequence[MeasuredStep]) -> Validation:
    """Predict every step with ``device`` and compare. ``fitted_on``: the steps that the profile, and so the single rate, are fitted to."""
    rate = single_flop_rate([step.report for step in fitted_on]) if fitted_on else None
    errors = [_error(device, step, rate) for step in steps]
    seconds = [error.measured_s for error in errors]
    return Validation(
        steps=errors,
        flops_per_s=rate,
        median_step=median(abs(error.step) for error in errors),
        median_phases={phase: median(abs(error.phases[phase]) for error in errors) for phase in PHASES},
        median_half_spread=median(error.half_spread for error in errors),
        median_single_rate=None if rate is None else median(abs(error.single_rate or 0.0) for error in errors),
        span=max(seconds) / min(seconds),
    )


def single_flop_rate(reports: Sequence[StepReport]) -> float:
    """The rate r of step_s = model_flops / r, by the same robust loss on relative errors as the profile's."""
    from scipy.optimize import least_squares

    ratio = np.array([report.throughput.model_flops / report.time.step_s for report in reports])
    middle = float(np.median(ratio))
    solved = least_squares(lambda x: x * ratio / middle - 1, [1.0], loss="soft_l1", f_scale=OUTLIER)
    return middle / float(solved.x[0])


def _error(device: DeviceSpec, step: MeasuredStep, rate: float | None) -> StepError:
    measured = step.report.time
    report = predict(step.model, step.plan, device, Network(load_fabric("single-node", {}), step.plan))
    return StepError(
        name=step.name,
        measured_s=measured.step_s,
        predicted_s=report.time.step_s,
        step=report.time.step_s / measured.step_s - 1,
        phases={phase: _relative(getattr(report.time, f"{phase}_s"), getattr(measured, f"{phase}_s")) for phase in PHASES},
        half_spread=_half_spread(measured.repeats_s),
        yardstick_share=step.yardstick_share,
        single_rate=None if rate is None else step.report.throughput.model_flops / rate / measured.step_s - 1,
    )


def _relative(predicted: float, measured: float) -> float:
    return predicted / measured - 1 if measured else 0.0


def _half_spread(repeats_s: Sequence[float]) -> float:
    if not repeats_s:
        return 0.0
    low, middle, high = np.quantile(np.array(repeats_s), [0.1, 0.5, 0.9])
    return float((high - low) / 2 / middle)
