"""What the host of a GPU needs to issue an operation, from steps that wait for it.

Single calls take 8 microseconds. In a training step autograd, the module around an operation and the optimizer's bookkeeping come on top, which only a whole
step tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, stdev

from calibration.device.reports import MeasuredStep
from configuration.errors import ConfigurationError
from fabrics.loading import load_fabric
from simulator.predict import predict
from simulator.specs.device import DeviceSpec
from simulator.time.communication import Network

LONGEST_S = 1e-3
"""No host needs so long for an operation."""

LEAST_SHARE = 0.9
"""A step tells the host's time if it grows by so much of what that grows by."""


@dataclass(frozen=True)
class HostTime:
    """``seconds`` for each operation: of every step, by its file, and their median."""

    seconds: float
    standard_error: float | None
    by_step: dict[str, float]


def fit_host(device: DeviceSpec, steps: Sequence[MeasuredStep]) -> HostTime:
    """The ``host_overhead_s`` of ``device`` with which each step is predicted as it was measured.

    Raises ConfigurationError for a device without a host of its own, and for a step of several ranks or one that does not wait for its host.
    """
    if device.host_and_device_are_one:
        raise ConfigurationError(f"device {device.name}: operations run where they are issued, there is no host time to fit (legal: a GPU)")
    devices = {step.report.provenance.device for step in steps}
    if len(devices) > 1:
        raise ConfigurationError(f"steps of {', '.join(sorted(map(str, devices)))}: the host time is fitted to steps of one device")
    by_step = {str(step.path): _of_step(device, step) for step in steps}
    found = list(by_step.values())
    return HostTime(median(found), stdev(found) / len(found) ** 0.5 if len(found) > 1 else None, by_step)


def with_host_time(device: DeviceSpec, seconds: float, name: str, reference: str, standard_error: float | None = None) -> DeviceSpec:
    """``device`` under another name, with this ``host_overhead_s``."""
    update = {"value": seconds, "origin": "fitted", "reference": reference, "standard_error": standard_error}
    return device.model_copy(update={"name": name, "host_overhead_s": device.host_overhead_s.model_copy(update=update)})


def _of_step(device: DeviceSpec, step: MeasuredStep) -> float:
    from scipy.optimize import brentq

    if step.plan.ranks != 1:
        raise ConfigurationError(f"{step.path}: plan.ranks ({step.plan.ranks}): the host time is fitted to steps of one rank (legal: 1)")
    if step.report.provenance.device == "cpu":
        raise ConfigurationError(f"{step.path}: measured on a CPU, which has no host beside it (legal: a step measured on a GPU)")
    network = Network(load_fabric("single-node", {}), step.plan)
    measured_s = step.report.time.step_s

    def excess_s(seconds: float) -> float:
        return predict(step.model, step.plan, with_host_time(device, seconds, device.name, ""), network).time.step_s - measured_s

    if excess_s(0.0) < 0 < excess_s(LONGEST_S):
        found = float(brentq(excess_s, 0.0, LONGEST_S, xtol=1e-9))
        if excess_s(1.1 * found) > 0.1 * LEAST_SHARE * measured_s:
            return found
    raise ConfigurationError(f"{step.path}: this step does not wait for its host: measure a smaller model, its kernels issued one by one")
