"""A profile held against measured steps, and the CPU experiment that is kept with the project."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.device.profile import to_yaml
from calibration.device.reports import in_quiet_time, load_steps
from calibration.device.validation import single_flop_rate, validate
from simulator.machine import this_machine
from simulator.records.step_report import StepReport
from simulator.specs.device import DeviceSpec
from simulator.specs.presets import DEVICES

Writer = Callable[[dict[str, StepReport], str], Path]
MEASURED = Path(__file__).resolve().parents[3] / "calibration" / "measurements" / "cpu-xeon-2026-11-23"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_the_true_device_has_no_error(truth: DeviceSpec, reports: dict[str, StepReport], write: Writer) -> None:
    found = validate(truth, load_steps([write(reports, "held-out")]), [])
    assert found.median_step == pytest.approx(0, abs=1e-9)
    assert set(found.median_phases) == {"forward", "backward", "optimizer"}
    assert found.advantage is None


def test_a_step_twice_as_long_is_an_error_of_a_half(truth: DeviceSpec, reports: dict[str, StepReport], write: Writer) -> None:
    slow = reports["default"].model_copy(update={"time": reports["default"].time.model_copy(update={"step_s": 2 * reports["default"].time.step_s})})
    (error,) = validate(truth, load_steps([write({"slow": slow}, "slow")]), []).steps
    assert error.step == pytest.approx(-0.5)


def test_seconds_beside_a_slow_yardstick_count_less(reports: dict[str, StepReport], write: Writer) -> None:
    def beside(name: str, rate: float | None) -> StepReport:
        return reports[name].model_copy(update={"provenance": reports[name].provenance.model_copy(update={"yardstick_flops_per_s": rate})})

    steps = load_steps([write({"default": beside("default", 1e11), "long": beside("long", 8e10), "small": beside("small", None)}, "steps")])
    default, long, small = in_quiet_time(steps)
    assert default.report.time == reports["default"].time
    assert small.report.time == reports["small"].time
    assert long.yardstick_share == pytest.approx(0.8)
    assert long.report.time.step_s == pytest.approx(0.8 * reports["long"].time.step_s)
    assert sum(row.time_s for row in long.report.time.rows) == pytest.approx(0.8 * sum(row.time_s for row in reports["long"].time.rows))


def test_the_single_rate_is_flops_over_time(reports: dict[str, StepReport]) -> None:
    report = reports["default"]
    assert single_flop_rate([report]) == pytest.approx(report.throughput.model_flops / report.time.step_s)


def test_fit_and_validate_on_the_command_line(reports: dict[str, StepReport], write: Writer, tmp_path: Path) -> None:
    held_out = write({name: reports[name] for name in ("experts", "small")}, "held-out")
    fitted = write({name: report for name, report in reports.items() if name not in ("experts", "small")}, "fit")
    profile = tmp_path / "device.yaml"
    done = command("calibration", "fit", fitted, "--name", "mine", "-o", profile, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["device"]["name"] == "mine"
    done = command("calibration", "validate", profile, held_out, "--fitted-on", fitted, "--check", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["median_step"] < 0.05
    slow = reports["default"].model_copy(update={"time": reports["default"].time.model_copy(update={"step_s": 2 * reports["default"].time.step_s})})
    missed = command("calibration", "validate", profile, write({"slow": slow}, "slow"), "--check")
    assert missed.returncode == 1
    assert "median error of the step is 50.0%" in missed.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "--name", "x"), "give measured StepReports"),
        (("fit", "absent.json", "--name", "x"), "does not exist"),
        (("fit", "--probes", "absent.jsonl", "--name", "x"), "cannot be read"),
        (("validate", "no-such-device", "absent.json"), "unknown name"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = command("calibration", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_prediction_says_when_the_profile_is_of_another_machine(truth: DeviceSpec, tmp_path: Path) -> None:
    for machine, foreign in (("another, 1 thread", True), (f"{this_machine()}, 1 thread", False)):
        path = tmp_path / "device.yaml"
        path.write_text(to_yaml(truth.model_copy(update={"machine": machine})), encoding="utf-8")
        done = command("simulator", "predict", "--model", "tiny-moe", "--fabric", "single-node", "--gpus", "1", "--device", path, "--json")
        notes = json.loads(done.stdout)["provenance"]["notes"]
        assert any("of another machine" in note for note in notes) == foreign


def test_a_type_without_a_rate_is_said(truth: DeviceSpec, tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(to_yaml(truth), encoding="utf-8")
    done = command(
        "simulator", "predict", "--model", "tiny-moe", "--fabric", "single-node", "--gpus", "1", "--device", path, "--set", "plan.precision=bf16-mixed"
    )
    assert "no bf16 rate" in " ".join(done.stdout.split())


def test_the_cpu_experiment_holds() -> None:
    held_out, fitted = load_steps([MEASURED / "held-out"]), load_steps([MEASURED / "fit"])
    found = validate(DEVICES.load("cpu"), in_quiet_time(held_out, beside=fitted), in_quiet_time(fitted, beside=held_out))
    assert found.span > 30
    assert found.median_step < max(0.15, found.median_half_spread)
    assert all(error < 0.25 for error in found.median_phases.values())
    assert found.advantage is not None
    assert found.advantage > 2
