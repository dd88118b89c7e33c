"""Tables of the calibration page."""

from collections.abc import Iterator
from typing import Any

from calibration.device.validation import PHASES, Validation
from reports.page import Table
from simulator.specs.device import DeviceSpec
from simulator.units import show_seconds


def steps(found: Validation) -> Table:
    """Every measured step beside its prediction."""
    rows = tuple(
        (
            step.name, f"{step.yardstick_share:.0%}", show_seconds(step.measured_s), show_seconds(step.predicted_s), f"{step.step:+.1%}",
            *(f"{step.phases[phase]:+.1%}" for phase in PHASES), f"{step.half_spread:.1%}", "" if step.single_rate is None else f"{step.single_rate:+.1%}",
        )
        for step in found.steps
    )  # fmt: skip
    headers = ("step", "yardstick", "measured", "predicted", "error", *PHASES, "spread", "one FLOP rate")
    return Table("Predicted over measured, less one", headers, rows)


def constants(device: DeviceSpec) -> Table:
    """Every constant of the profile with its source."""
    rows = tuple(
        (name, f"{constant['value']:.4g}", _error(constant), str(constant["origin"]), str(constant["reference"]))
        for name, constant in _constants(device.model_dump(mode="json"), "")
    )
    return Table(f"Constants of {device.name}", ("constant", "value", "standard error", "origin", "source"), rows)


def _error(constant: dict[str, Any]) -> str:
    return f"{constant['standard_error'] / constant['value']:.1%}" if constant.get("standard_error") and constant["value"] else ""


def _constants(data: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in data.items():
        if isinstance(value, dict):
            if "origin" in value:
                yield f"{path}{name}", value
            else:
                yield from _constants(value, f"{path}{name} ")
