"""The commands as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.records.run_table import read_rows


def _reports(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "reports", *arguments], cwd=cwd, capture_output=True, text=True)


def test_step_writes_a_page_and_its_figures(predicted: Path, tmp_path: Path) -> None:
    done = _reports("step", "--predicted", str(predicted), "-o", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "activations.png", "memory_at_peak.png", "memory_timeline.png", "step.html", "time_by_component.png", "time_parts.png",
    ]  # fmt: skip
    assert "Adam's states take 2 times the bytes of the weights" in done.stdout
    assert done.stderr == ""


def test_without_a_folder_pages_go_to_reports_out(predicted: Path, tmp_path: Path) -> None:
    assert _reports("step", "--predicted", str(predicted), cwd=tmp_path).returncode == 0
    assert (tmp_path / "reports-out" / "step" / "step.html").is_file()


def test_json_tells_verdicts_and_files(tmp_path: Path) -> None:
    done = _reports("fabric", "--models", "tiny-moe", "--fabric", "single-node", "--json", "-o", "out", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert all((tmp_path / path).is_file() for path in document["files"])
    assert document["verdicts"]


CPU_STEPS = Path(__file__).resolve().parents[2] / "calibration" / "measurements" / "cpu-xeon-2026-11-23"


def test_calibration_tells_its_errors_with_and_without_the_yardstick(tmp_path: Path) -> None:
    held_out, fitted = str(CPU_STEPS / "held-out"), str(CPU_STEPS / "fit")
    arguments = ("calibration", "--device", "cpu", held_out, "--fitted-on", fitted, "--json")
    corrected, raw = (json.loads(_reports(*arguments, *more, "-o", "out", cwd=tmp_path).stdout) for more in ((), ("--raw",)))
    assert corrected["verdicts"] != raw["verdicts"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("step", "--predicted", "absent.json"), "file 'absent.json' does not exist"),
        (("fabric", "--fabric", "spine-leav"), "did you mean 'spine-leaf'?"),
        (("fabric", "--models", "tiny-mo"), "did you mean 'tiny-moe'?"),
        (("fabric", "--set", "fabric.spines=1,2"), "one value expected here"),
        (("fabric", "--set", "plan.ep=3"), "ep (3) must divide ranks"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = _reports(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(predicted: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = _reports("step", "--predicted", str(predicted), "-o", "taken", cwd=tmp_path)
    assert done.returncode == 2
    assert "--output taken: not writable" in done.stderr


def test_help_comes_without_matplotlib() -> None:
    code = "import sys, reports.cli; sys.exit(any(name in sys.modules for name in ('matplotlib', 'networkx', 'scipy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_the_scaling_page_through_the_real_command_with_every_option(tmp_path: Path) -> None:
    own = Path(__file__).resolve().parents[2] / "calibration" / "measurements" / "moe-scaling-h100" / "losses.csv"
    rows = read_rows(own)[:3]
    for row in rows:
        (tmp_path / "logs" / row.run).mkdir(parents=True)
        (tmp_path / "logs" / row.run / "log.jsonl").write_text('{"step": 1, "loss_nats_per_token": 5.5}\n{"step": 2, "loss_nats_per_token": 5.0}\n')
    words = ("--law", "chinchilla", "--count", "active-non-embedding", "--logs", str(tmp_path / "logs"), "--holdout-above", "3e14")
    command = [sys.executable, "-m", "reports", "scaling", "--runs", str(own), *words, "-o", str(tmp_path / "page"), "--json"]
    document = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert "N counts active-non-embedding parameters" in document["subject"]
    assert {Path(file).name for file in document["files"]} >= {"loss_curves.png", "residuals.png", "parity.png", "isoflops.png", "roofline.png", "scaling.html"}
    page = (tmp_path / "page" / "scaling.html").read_text()
    assert "covariance" in page
    assert "AICc" in page
