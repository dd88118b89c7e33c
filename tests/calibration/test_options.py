"""Options of ``python -m calibration``, through the real command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.records.run_table import RunRow, write_rows

MEASURED = Path(__file__).resolve().parents[2] / "calibration" / "measurements" / "cpu-xeon-2026-11-23"


def calibration(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "calibration", *words], capture_output=True, text=True)


def answer(*words: str) -> dict[str, Any]:
    done = calibration(*words, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on a known surface, with a little noise; embeddings are a tenth of each model."""
    rng = np.random.default_rng(0)
    rows = []
    for n in np.geomspace(1e6, 64e6, 4):
        for d in np.geomspace(2e7, 1.28e9, 4):
            loss = (1.8 + 400 / n**0.34 + 1500 / d**0.36) * np.exp(0.002 * rng.standard_normal())
            rows.append(
                RunRow(
                    run=f"n{n:.0f}-d{d:.0f}", total_parameters=n, active_parameters=n, non_embedding_parameters=0.9 * n, embedding_parameters=0.1 * n,
                    tokens=d, training_flops=6 * n * d, validation_loss_nats_per_token=loss,
                )
            )  # fmt: skip
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    write_rows(path, rows)
    return path


@pytest.mark.slow
def test_what_is_counted_moves_the_fitted_point_and_the_band_of_tokens_excludes_runs(table: Path) -> None:
    words = ("scaling", "fit", "--runs", str(table), "--resamples", "100")
    every = answer(*words)
    assert answer(*words, "--count", "active-non-embedding")["verdict"]["n"] == pytest.approx(0.9 * every["verdict"]["n"])
    narrow = answer(*words, "--tokens-per-parameter", "3,300")
    assert narrow["rows"]["fitted"] < every["rows"]["fitted"]
    assert narrow["rows"]["excluded"]


def test_delta_is_the_objective_s(table: Path) -> None:
    words = ("scaling", "fit", "--runs", str(table), "--resamples", "100")
    assert "0.01" in answer(*words, "--delta", "0.01")["objective"]["kind"]
    assert "least squares" in answer(*words, "--delta", "inf")["objective"]["kind"]


@pytest.mark.slow
def test_memory_limits_the_model_and_inference_makes_it_smaller(table: Path) -> None:
    words = ("scaling", "optimal", "--runs", str(table), "--flops", "1e18", "--resamples", "100")
    free = json.dumps(answer(*words))
    for more in (
        ("--memory", "0.2"),
        ("--inference-tokens", "1e10"),
        ("--delta", "0.1"),
        ("--count", "active-non-embedding"),
        ("--tokens-per-parameter", "3,300"),
    ):
        assert json.dumps(answer(*words, *more)) != free, more


def test_unique_tokens_belong_to_the_data_constrained_law(table: Path) -> None:
    words = ("scaling", "optimal", "--law", "data-constrained", "--published", "muennighoff", "--flops", "1e21")
    plenty, scarce = (json.dumps(answer(*words, "--unique-tokens", tokens)) for tokens in ("1e12", "1e9"))
    assert plenty != scarce


def test_base_date_and_raw_of_fit(tmp_path: Path) -> None:
    target = tmp_path / "device.yaml"
    done = calibration("fit", str(MEASURED / "fit"), "--name", "mine", "--base", "cpu", "--date", "2026-01-02", "--raw", "-o", str(target))
    assert done.returncode == 0, done.stderr
    text = target.read_text()
    assert "name: mine" in text
    assert "2026-01-02" in text
    corrected = tmp_path / "corrected.yaml"
    calibration("fit", str(MEASURED / "fit"), "--name", "mine", "--date", "2026-01-02", "-o", str(corrected))
    assert corrected.read_text() != text


@pytest.mark.parametrize(("option", "value"), [("--phase-tolerance", "0.0001"), ("--advantage", "1000")])
def test_a_tolerance_that_is_missed_leaves_with_1(option: str, value: str) -> None:
    words = ("validate", "cpu", str(MEASURED / "held-out"), "--fitted-on", str(MEASURED / "fit"), "--check")
    assert calibration(*words).returncode == 0
    assert calibration(*words, option, value).returncode == 1


def test_raw_seconds_give_other_errors_than_corrected_ones() -> None:
    words = ("validate", "cpu", str(MEASURED / "held-out"), "--fitted-on", str(MEASURED / "fit"))
    assert answer(*words) != answer(*words, "--raw")


def test_the_step_s_tolerance_is_the_larger_of_the_option_and_the_repeats_half_spread(tmp_path: Path) -> None:
    """A report whose repeats all took the same time leaves the option alone to decide."""
    report = json.loads((MEASURED / "held-out" / "wide-192.json").read_text())
    report["time"]["repeats_s"] = [report["time"]["step_s"]] * 20
    path = tmp_path / "steady.json"
    path.write_text(json.dumps(report))
    words = ("validate", "cpu", str(path), "--check", "--phase-tolerance", "10", "--raw")
    assert calibration(*words, "--step-tolerance", "10").returncode == 0
    assert calibration(*words, "--step-tolerance", "0.000001").returncode == 1
