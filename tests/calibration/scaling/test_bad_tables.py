"""A table that cannot be used is refused in one line that says where and why."""

import subprocess
import sys
from pathlib import Path

import pytest

HEADER = "run,total_parameters,active_parameters,tokens,validation_loss_nats_per_token"
GRID = [f"r{n}-{d},{n}e6,{n}e6,{d}e8,{2 + 1 / n + 1 / d}" for n in (1, 2, 4, 8) for d in (1, 2, 4, 8)]


def refusal(tmp_path: Path, lines: list[str], *options: str) -> str:
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(lines) + "\n")
    words = [sys.executable, "-m", "calibration", "scaling", "fit", "--runs", str(table), *options]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1), result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEADER.replace(",tokens", ""), "a,1e6,1e6,3.0"], "no column for tokens"),
        ([HEADER, "a,1e6,1e6,1e8,nan"], "line 2: validation_loss_nats_per_token"),
        ([HEADER, "a,1e6,1e6,-1e8,3.0"], "line 2: tokens"),
        ([HEADER, *GRID, GRID[0]], "line 18: run 'r1-1' with 1e+08 tokens stands already in line 2"),
        ([HEADER, *(line for line in GRID if line.startswith(("r1-", "r8-")))], "needs at least 3 levels of N (parameters), the table has 2"),
        ([HEADER, "a,1e6,1e6,1e10,3.0"], "no run passes the gates; the first: run 'a': 1e+04 tokens per parameter"),
    ],
)
def test_one_line_says_where_and_why(tmp_path: Path, lines: list[str], said: str) -> None:
    assert said in refusal(tmp_path, lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--law", "chinchila"), "chinchilla"),
        (("--law", "kaplan"), "only its published coefficients are offered"),
        (("--prior", "gamma=1:1"), "law chinchilla has no such parameter"),
        (("--prior", "alpha=1"), "expected NAME=MEAN:SD"),
        (("--prior", "alpha=nan:1"), "expected NAME=MEAN:SD"),
        (("--prior", "=1:1"), "expected NAME=MEAN:SD"),
        (("--prior", "alpha=1:1", "--prior", "alpha=2:1"), "alpha is given twice"),
        (("--holdout-above", "1e3"), "no run has so few FLOPs"),
        (("--at", "1e9"), "expected N,D or N,D,E"),
        (("--fabric", "spine-leaf"), "--fabric and --model go together"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    assert said in refusal(tmp_path, [HEADER, *GRID], *options)
