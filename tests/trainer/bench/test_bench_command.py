"""``bench`` on the real command line."""

import json
import subprocess
import sys

import pytest

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
    assert {row["operation"] for row in ran} == {"norm", "swiglu", "experts", "permutation", "router", "cross_entropy", "attention"}
    assert max(max(row["forward_error"], row["gradient_error"]) for row in ran) < 1e-5
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
