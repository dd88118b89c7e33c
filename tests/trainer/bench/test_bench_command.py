"""``bench`` on the real command line."""

import json
import math
import subprocess
import sys

import pytest

from calibration.device.probes import load_probes
from trainer.bench.collectives import group_sizes
from trainer.bench.losses import chain, compared, entropy

SMALL = [f"--set=shape.{size}" for size in ("tokens=64", "width=32", "experts=4", "expert_width=32", "vocabulary=128", "heads=2", "sequence=32")]


MINE = """
import torch.nn.functional as F

def mine(x, weight):
    return F.rms_norm(x, (x.shape[1],), weight, 1e-5)

KERNELS = {"norm": {"mine": mine}}
"""


def bench(*options):
    return subprocess.run([sys.executable, "-m", "trainer", "bench", "--device", "cpu", *options], capture_output=True, text=True)


def test_every_kernel_that_runs_is_close_to_float64(tmp_path):
    figure = tmp_path / "roofline.png"
    done = bench(*SMALL, "--repeats", "5", "--json", "--figure", str(figure))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    ran = [row for row in rows if row["forward"]]
    assert {row["operation"] for row in ran} == {"norm", "swiglu", "experts", "permutation", "router", "cross_entropy", "attention", "optimizer"}
    # An optimizer's error is relative to what it moves the weights by, which fp32 rounds.
    assert all(row["forward_error"] < (1e-3 if row["operation"] == "optimizer" else 1e-5) for row in ran)
    assert max(row["gradient_error"] for row in ran if row["backward"]) < 1e-5
    assert all(len(row["forward"]["repeats_s"]) == 5 for row in ran)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_users_file_adds_a_kernel(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch.nn.functional as F\n\ndef mine(x, weight):\n    return F.rms_norm(x, (x.shape[1],), weight, 1e-5)\n\nKERNELS = {'norm': {'mine': mine}}\n"
    )
    done = bench(*SMALL, "--kernel", "norm", "--file", str(file), "--json")
    assert done.returncode == 0, done.stderr
    errors = {row["kernel"]: row["forward_error"] for row in json.loads(done.stdout)["rows"]}
    assert set(errors) == {"eager", "recompute", "mine"}
    assert errors["mine"] < 1e-6


@pytest.mark.slow
def test_the_device_suite_has_all_that_calibration_fits_and_fabrics_reads(tmp_path):
    probes = tmp_path / "probes.jsonl"
    done = bench("--suite", "device", "--repeats", "5", "--ranks", "3", "--json", "--probes", str(probes))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"gemm", "grouped_gemm", "attention_forward_backward", "copy", "silu", "adamw_fused", "host_per_call"} <= {row["kind"] for row in document["rows"]}
    collectives = document["collectives"]
    assert {(row["op"], row["ranks"]) for row in collectives} >= {("all_to_all", 2), ("all_reduce", 3), ("ping_pong_round_trip", 2)}
    for row in (*document["rows"], *collectives):
        assert len(row["repeats_us"]) == 5
        assert row["outliers"] == [index for index, us in enumerate(row["repeats_us"]) if us > 1.5 * row["us"]]
    assert {"torch", "python"} <= set(document["provenance"]["versions"])
    read = load_probes(probes)
    assert len(read.observations) > 50
    assert set(read.left_out) == {"collective"}


def test_groups_are_powers_of_two_and_all_ranks():
    assert group_sizes(2) == [2]
    assert group_sizes(8) == [2, 4, 8]
    assert group_sizes(6) == [2, 4, 6]


def test_a_variant_is_held_against_the_spread_of_seeds():
    losses = {"reference": (2.0, 2.2), "fast": (2.05, 2.21), "broken": (2.5, 2.7)}
    rows = [{"variant": name, "seed": seed, "mean_of_last": loss} for name, found in losses.items() for seed, loss in enumerate(found)]
    found = {row["variant"]: row for row in compared(rows)}
    assert found["fast"]["difference"] == pytest.approx(0.03)
    assert found["fast"]["largest"] == pytest.approx(0.05)
    assert found["fast"]["spread"] == pytest.approx(0.1 * 2**0.5)
    assert {name: row["within_spread"] for name, row in found.items()} == {"reference": True, "fast": True, "broken": False}


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
        (("--suite", "device", "--kernel", "norm"), "--kernel"),
    ],
)
def test_bad_use_is_told_in_one_line(options, told):
    done = bench(*options)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
