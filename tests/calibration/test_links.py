"""``fit-links``: from measured collectives to a fabric that predictions take."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configuration.errors import ConfigurationError
from fabrics.cost import cost
from fabrics.loading import load_fabric
from fabrics.measurements import fit, read

TRUTH = {"accelerators": 2, "link_kind": "socket", "link_bytes_per_s": 20e9, "hop_latency_s": 0.0, "link_profile": "h200-socket"}
NAMES = {
    "all_reduce": "all-reduce",
    "all_to_all": "all-to-all",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "ping_pong_round_trip": "point-to-point",
}
SIZES = [4**power for power in range(5, 15)]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", program, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A document as ``trainer bench`` writes it, of links whose constants are known; every third repeat was disturbed, and so was the median of one size."""
    fabric = load_fabric("single-node", TRUTH)
    rows = []
    for op, collective in NAMES.items():
        messages = 2 if op == "ping_pong_round_trip" else 1
        for size, seconds in zip(SIZES, cost(fabric, collective, [(0, 1)], np.array(SIZES, dtype=float)).time_s, strict=True):
            us = float(seconds) * messages * 1e6
            repeats_us = [us, 1.01 * us, 9 * us]
            row = {"op": op, "bytes": size, "ranks": 2, "transport": "gloo", "us": 3 * us if size == SIZES[4] else 1.01 * us, "repeats_us": repeats_us}
            rows.append(row)
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"rows": [], "collectives": rows}, indent=2))
    return file


def test_a_fabric_is_written_that_a_prediction_takes(measured: Path, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    arguments = (str(measured), "--transport", "gloo", "--name", "two-processes", "--device", "cpu")
    done = run("calibration", "fit-links", *arguments, "--least", "--json", "-o", str(file))
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)["errors"]
    assert set(errors) == set(NAMES.values())
    # Lines are fitted to every other size, where a corner of the truth may lie between two of them.
    assert max(error["median"] for error in errors.values()) < 0.1
    predicted = run("simulator", "predict", "--model", "tiny-moe", "--fabric", str(file), "--set", "plan.ep=2", "--json")
    assert predicted.returncode == 0, predicted.stderr
    report = json.loads(predicted.stdout)
    assert report["provenance"]["device"] == "cpu"
    assert report["plan"]["ranks"] == 2
    truth, fitted = load_fabric("single-node", TRUTH), load_fabric(str(file))
    for row in report["communication"]:
        wanted_s, found_s = (float(cost(fabric, row["collective"], [(0, 1)], [row["bytes_per_call"]]).time_s[0]) for fabric in (truth, fitted))
        assert found_s == pytest.approx(wanted_s, rel=0.3)
        assert row["time_s"] == pytest.approx(row["calls"] * found_s)


def test_a_disturbed_median_shows_in_the_errors(measured: Path) -> None:
    worst = []
    for options in ((), ("--least",)):
        done = run("calibration", "fit-links", str(measured), "--transport", "gloo", "--name", "x", "--device", "cpu", "--json", *options)
        worst.append(max(error["worst"] for error in json.loads(done.stdout)["errors"].values()))
    assert worst[0] > worst[1]


def test_a_table_is_printed_and_a_transport_that_was_not_measured_is_refused(measured: Path) -> None:
    shown = run("calibration", "fit-links", str(measured), "--transport", "gloo", "--name", "x", "--device", "cpu")
    assert "all-to-all" in shown.stdout
    refused = run("calibration", "fit-links", str(measured), "--transport", "nvlink", "--name", "x", "--device", "cpu")
    assert refused.returncode == 2
    assert "has no lines with transport 'nvlink'" in refused.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1, 2]", "has no lines with transport 'gloo'"),
        ('{"collectives": 3}', "has no lines with transport 'gloo'"),
        ('{"op": "all_reduce", "transport": "gloo", "us": 3}', "a row of all_reduce over gloo has no bytes"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(content: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=told):
        read(file, "gloo")


def test_two_sizes_make_no_line(tmp_path: Path) -> None:
    file = tmp_path / "few.json"
    file.write_text("\n".join(json.dumps({"op": "all_reduce", "transport": "gloo", "us": size / 1e3, "bytes": size}) for size in (1024, 4096)))
    with pytest.raises(ConfigurationError, match="all-reduce has 2 sizes"):
        fit(read(file, "gloo"), "few", "a test")
