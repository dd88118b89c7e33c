"""``bench`` on the real command line."""

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from calibration.device.probes import load_probes
from trainer.bench.collectives import group_sizes
from trainer.bench.losses import VARIANTS, chain, compared, entropy
from trainer.bench.plans_suite import PLANS

SMALL = [f"--set=shape.{size}" for size in ("tokens=64", "width=32", "experts=4", "expert_width=32", "vocabulary=128", "heads=2", "sequence=32")]


README = Path(__file__).parents[3] / "trainer" / "bench" / "README.md"
SMALL_MODEL = Path(__file__).parents[3] / "calibration" / "measurements" / "small-moe.yaml"


@pytest.fixture
def bench(trainer):
    return partial(trainer, "bench", "--device", "cpu")


def test_every_kernel_that_runs_is_close_to_float64(tmp_path):
    figure = tmp_path / "roofline.png"
    command = [sys.executable, "-m", "trainer", "bench", "--device", "cpu", *SMALL, "--repeats", "5", "--json", "--figure", str(figure)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    ran = [row for row in rows if row["forward"]]
    assert {row["operation"] for row in ran} == {"norm", "rope", "swiglu", "experts", "permutation", "router", "cross_entropy", "attention", "optimizer"}
    # An optimizer's error is relative to what it moves the weights by, which fp32 rounds.
    assert all(row["forward_error"] < (1e-3 if row["operation"] == "optimizer" else 1e-5) for row in ran)
    assert max(row["gradient_error"] for row in ran if row["backward"]) < 1e-5
    assert all(len(row["forward"]["repeats_s"]) == 5 for row in ran)
    assert {row[way]["issued"] for row in ran for way in ("forward", "backward") if row[way]} == {"host"}
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_the_file_that_the_readme_shows_adds_a_kernel(bench, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(README.read_text().partition("```python\n")[2].partition("```")[0])
    done = bench(*SMALL, "--kernel", "swiglu", "--file", str(file), "--json")
    assert done.code == 0, done.err
    rows = {row["kernel"]: row for row in json.loads(done.out)["rows"]}
    assert set(rows) == {"eager", "recompute", "triton", "mine"}
    assert max(rows["mine"]["forward_error"], rows["mine"]["gradient_error"]) < 1e-6


@pytest.mark.slow
def test_the_device_suite_has_all_that_calibration_fits_and_fabrics_reads(bench, tmp_path):
    probes = tmp_path / "probes.jsonl"
    done = bench("--suite", "device", "--repeats", "5", "--ranks", "3", "--json", "--probes", str(probes))
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert {"gemm", "grouped_gemm", "attention_forward_backward", "copy", "silu", "adamw_fused", "host_per_call"} <= {row["kind"] for row in document["rows"]}
    collectives = document["collectives"]
    assert {(row["op"], row["ranks"]) for row in collectives} >= {("all_to_all", 2), ("all_reduce", 3), ("ping_pong_round_trip", 2)}
    for row in (*document["rows"], *collectives):
        assert len(row["repeats_us"]) == 5
        assert row["issued"] == "host"
        assert row["outliers"] == [index for index, us in enumerate(row["repeats_us"]) if us > 1.5 * row["us"]]
    assert {"torch", "python"} <= set(document["provenance"]["versions"])
    read = load_probes(probes)
    assert len(read.observations) > 50
    assert {"multiply_by_row", "multiply_by_column", "copy_of_half", "silu_of_half"} <= {observation.name for observation in read.observations}
    assert set(read.left_out) == {"collective"}


@pytest.mark.slow
def test_the_losses_of_every_variant_stay_within_the_spread_of_seeds(bench):
    sizes = ("steps=40", "seeds=2", "last=10", "micro_batch=2", "sequence=64")
    done = bench("--suite", "losses", "--json", f"--set=shape.model={SMALL_MODEL}", *(f"--set=shape.{size}" for size in sizes))
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert {(row["variant"], row["seed"]) for row in document["rows"]} == {(name, seed) for name in VARIANTS for seed in range(2)}
    assert all(len(row["losses"]) == 40 for row in document["rows"])
    assert all(row["within_spread"] for row in document["comparison"])


@pytest.mark.slow
def test_plans_take_turns_with_a_matrix_product(bench):
    done = bench("--suite", "plans", "--json", "--repeats", "5", f"--set=shape.model={SMALL_MODEL}")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    assert [row["plan"] for row in rows] == list(PLANS)
    for row in rows:
        for clock in ("wall_time", "processor_time"):
            assert len(row[clock]["steps_s"]) == 5
            assert 0 < row[clock]["quartiles"][0] <= row[clock]["share_of_product"] <= row[clock]["quartiles"][1]


@pytest.mark.slow
def test_whole_steps_of_a_small_model_are_compared_on_a_cpu(bench):
    done = bench("--suite", "training", "--json", "--repeats", "5", f"--set=shape.model={SMALL_MODEL}")
    assert done.code == 0, done.err
    rows = {row["contender"]: row for row in json.loads(done.out)["rows"]}
    assert rows["trainer, plan fast"]["busiest_over_mean_by_layer"] == [1.0, 1.0]
    assert all(load > 1 for load in rows["trainer, plan fast, learned routing, clipped"]["busiest_over_mean_by_layer"])
    assert rows["plain, compiled"]["busiest_over_mean_by_layer"] == []


def test_groups_are_powers_of_two_and_all_ranks():
    assert group_sizes(2) == [2]
    assert group_sizes(8) == [2, 4, 8]
    assert group_sizes(6) == [2, 4, 6]


def test_a_variant_is_held_against_the_spread_of_seeds():
    losses = {"reference": (2.0, 2.2), "fast": (2.05, 2.21), "mixed-precision": (2.5, 2.7)}
    rows = [{"variant": name, "seed": seed, "mean_of_last": loss} for name, found in losses.items() for seed, loss in enumerate(found)]
    found = {row["variant"]: row for row in compared(rows)}
    assert found["fast"]["difference"] == pytest.approx(0.03)
    assert found["fast"]["largest"] == pytest.approx(0.05)
    assert found["fast"]["spread"] == pytest.approx(0.1 * 2**0.5)
    assert {name: row["within_spread"] for name, row in found.items()} == {"reference": True, "fast": True, "mixed-precision": False}


def test_the_text_of_the_losses_has_the_entropy_that_is_told():
    text = chain(512, 200, 100, seed=0)
    # The first successor of a token follows it in one of 1 + 1/2 + ... + 1/12 = 3.1032 cases.
    followers = text[:, 1:][text[:, :-1] == text[0, 0]]
    assert len(followers.unique()) <= 12
    assert entropy() == pytest.approx(sum(math.log(rank * 3.1032) / (rank * 3.1032) for rank in range(1, 13)), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--kernel", "norms"), "norm"),
        (("--repeats", "2"), "legal: 5 or more"),
        (("--set", "shape.token=4"), "tokens"),
        (("--suite", "training"), "CUDA"),
        (("--kernel", "rope", "--set", "shape.width=24"), "even width"),
        (("--suite", "device", "--kernel", "norm"), "--kernel"),
        (("--suite", "losses", "--set", "shape.seeds=1"), "seeds"),
        (("--suite", "losses", "--repeats", "9"), "--repeats"),
        (("--suite", "losses", "--set", "shape.steps=10"), "last (20) exceeds steps (10)"),
        (("--suite", "plans", "--set", "shape.tokens=4"), "legal: shape.model"),
    ],
)
def test_bad_use_is_told_in_one_line(bench, options, told):
    done = bench(*options)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
