"""The calibration page tells a profile's errors as validation computes them."""

from pathlib import Path

import pytest

from calibration.device.reports import load_steps
from calibration.device.validation import validate
from configuration.errors import ConfigurationError
from reports.calibration.build import build
from simulator.specs.presets import DEVICES


def test_errors_on_the_page_are_those_of_the_validation(measured: Path) -> None:
    page = build("cpu", [measured], [], raw=False)
    found = validate(DEVICES.load("cpu"), load_steps([measured]), [])
    assert [picture.name for picture in page.pictures] == ["predicted_measured", "residuals"]
    assert page.verdicts[0].startswith(f"The median error of 1 steps is {found.median_step:.1%}")
    assert f"{found.steps[0].step:+.1%}" in page.sections[0].items[2].rows[0]


def test_every_constant_stands_with_its_origin(measured: Path) -> None:
    table = build("cpu", [measured], [], raw=False).sections[1].items[0]
    assert all(row[3] in ("spec", "fitted", "assumed") for row in table.rows)
    assert any(row[0] == "kernels gemm flops_per_s fp32" for row in table.rows)


def test_steps_that_the_profile_was_fitted_to_are_pointed_at(measured: Path) -> None:
    page = build("cpu", [measured], [measured], raw=False)
    assert "Careful: 1 of the steps are among those that it was fitted to" in page.verdicts[-1]
    assert any("One FLOP rate" in verdict for verdict in page.verdicts)


def test_a_prediction_is_no_measurement(predicted: Path) -> None:
    with pytest.raises(ConfigurationError, match="legal: measured"):
        build("cpu", [predicted], [], raw=False)
