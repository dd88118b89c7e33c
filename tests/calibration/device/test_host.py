"""The host time of an operation, from whole steps on a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from calibration.device.host import fit_host, with_host_time
from calibration.device.reports import load_steps
from calibration.device.validation import validate
from configuration.errors import ConfigurationError
from simulator.specs.presets import DEVICES

MEASURED = Path("calibration/measurements/h100-2026-11-24")


CALLS_ALONE_S = 8.7e-6
"""Host time of a call without autograd on that machine."""


def test_a_host_bound_step_halves_the_error_of_another_that_is_partly_so() -> None:
    device = with_host_time(DEVICES.load("h100-sxm-80gb"), CALLS_ALONE_S, "calls alone", "")
    others = load_steps([MEASURED / "moe-s1-4-layers.json"])
    found = fit_host(device, load_steps([MEASURED / "tiny-moe.json"]))
    assert found.by_step == {str(MEASURED / "tiny-moe.json"): found.seconds}
    assert found.seconds == pytest.approx(37e-6, rel=0.02)
    before, after = (validate(each, others, []).median_step for each in (device, with_host_time(device, found.seconds, "fitted", "")))
    assert after < 0.06
    assert after < before / 2


@pytest.mark.parametrize(
    ("preset", "step"), [("h100-sxm-80gb", MEASURED / "tiny-moe.json"), ("h200-sxm-141gb", MEASURED.parent / "h200-2026-11-30" / "measure-tiny-moe.json")]
)
def test_the_host_time_of_the_preset_is_the_fit_to_our_step(preset: str, step: Path) -> None:
    device = DEVICES.load(preset)
    assert device.host_overhead_s.value == pytest.approx(fit_host(device, load_steps([step])).seconds, rel=1e-3)


def test_the_command_writes_a_profile(tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    words = ["fit-host", str(MEASURED / "tiny-moe.json"), "--device", "h100-sxm-80gb", "--name", "mine", "-o", str(profile), "--json"]
    document = json.loads(subprocess.run([sys.executable, "-m", "calibration", *words], capture_output=True, text=True, check=True).stdout)
    written = yaml.safe_load(profile.read_text())
    assert written["name"] == "mine"
    assert written["host_overhead_s"]["origin"] == "fitted"
    assert written["host_overhead_s"]["value"] == pytest.approx(document["device"]["host_overhead_s"]["value"], rel=1e-3)
    assert DEVICES.load(str(profile)).kernels == DEVICES.load("h100-sxm-80gb").kernels


@pytest.mark.parametrize(
    ("report", "device", "told"),
    [("moe-s1-4-layers", "h100-sxm-80gb", "does not wait for its host"), ("tiny-moe", "cpu", "there is no host time to fit")],
)
def test_what_tells_nothing_is_refused(report: str, device: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        fit_host(DEVICES.load(device), load_steps([MEASURED / f"{report}.json"]))


def test_a_step_of_a_cpu_is_refused() -> None:
    (step, *_) = load_steps([Path("calibration/measurements/cpu-xeon-2026-11-23/fit")])
    with pytest.raises(ConfigurationError, match="measured on a CPU"):
        fit_host(DEVICES.load("h100-sxm-80gb"), [step])
