"""Runs from TensorBoard's event files, through the real command."""

import subprocess
import sys
from pathlib import Path

import pytest

from simulator.records.run_table import read_rows

pytest.importorskip("tensorboard")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path / "events"
    with SummaryWriter(str(folder)) as writer:
        for step, loss in ((100, 3.5), (200, 2.75)):
            writer.add_scalar("eval/loss", loss, step)
            writer.add_scalar("tokens", step * 1024.0, step)
    return folder


def table(log: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "calibration", "scaling", "table", "--run", "a", "--active-parameters", "1e6", "--total-parameters", "4e6"]
    source = ("--tensorboard", str(log), "--experts", "8", "--top-k", "2", "-o", str(log.parent / "t.csv"))
    return subprocess.run([*command, *source, *words], capture_output=True, text=True)


@pytest.mark.parametrize("words", [("--tokens-per-step", "1024"), ("--tokens-tag", "tokens"), ("--loss-tag", "eval/loss", "--tokens-tag", "tokens")])
def test_the_last_value_becomes_a_row(log: Path, words: tuple[str, ...]) -> None:
    done = table(log, *words)
    assert done.returncode == 0, done.stderr
    (row,) = read_rows(log.parent / "t.csv")
    assert (row.run, row.tokens, row.validation_loss_nats_per_token, row.experts, row.top_k) == ("a", 204_800, 2.75, 8, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--tokens-per-step or --tokens-tag"),
        (("--loss-tag", "los"), "eval/loss"),
        (("--tokens-tag", "tokens", "--tokens-per-step", "1"), "one of --tokens-tag and --tokens-per-step"),
        (("--trainer-state", "x.json"), "one of --trainer-state and --tensorboard"),
    ],
)
def test_what_is_missing_is_told_in_one_line(log: Path, words: tuple[str, ...], message: str) -> None:
    done = table(log, *words)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert message in done.stderr
    assert not (log.parent / "t.csv").exists()


def test_a_folder_without_events_is_refused(tmp_path: Path) -> None:
    done = table(tmp_path, "--tokens-per-step", "1")
    assert done.returncode == 2
    assert "no scalars" in done.stderr
