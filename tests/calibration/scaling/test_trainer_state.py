"""Runs of Hugging Face's Trainer become rows of the run table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.scaling.trainer_state import row_of
from configuration.errors import ConfigurationError
from simulator.records.run_table import read_rows

LOG = [
    {"step": 10, "loss": 6.0, "learning_rate": 1e-4},
    {"step": 20, "loss": 5.0, "learning_rate": 3e-4},
    {"step": 200, "loss": 3.1, "learning_rate": 3e-5},
    {"step": 200, "eval_loss": 3.0},
]
VALUES = {"run": "a", "active_parameters": 1e6, "total_parameters": 4e6, "experts": 8, "top_k": 2}


def state(folder: Path, history: object) -> Path:
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"global_step": 200, "log_history": history}))
    return path


def test_the_last_evaluation_is_the_row_with_its_schedule(tmp_path: Path) -> None:
    row = row_of(state(tmp_path, LOG), VALUES, tokens_per_step=1000)
    assert (row.tokens, row.validation_loss_nats_per_token, row.warmup_tokens) == (200_000, 3.0, 20_000)
    assert row.final_learning_rate_share == pytest.approx(0.1)
    assert (row.experts, row.total_parameters) == (8, 4e6)


def test_counted_tokens_are_preferred(tmp_path: Path) -> None:
    counted = [*LOG[:-1], {**LOG[-1], "num_input_tokens_seen": 123_456}]
    assert row_of(state(tmp_path, counted), VALUES, tokens_per_step=1000).tokens == 123_456


@pytest.mark.parametrize(("history", "said"), [(None, "no list log_history"), (LOG[:-1], "never evaluated"), (LOG, "give --tokens-per-step")])
def test_a_file_that_cannot_be_a_row_is_refused(tmp_path: Path, history: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        row_of(state(tmp_path, history), VALUES)


def test_the_command_appends_and_repeating_it_changes_nothing(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    words = [sys.executable, "-m", "calibration", "scaling", "table", "--trainer-state", str(state(tmp_path, LOG)), "--run", "a"]
    words += ["--active-parameters", "1e6", "--tokens-per-step", "1000", "-o", str(table)]
    for _ in range(2):
        subprocess.run(words, capture_output=True, text=True, check=True)
    assert [row.tokens for row in read_rows(table)] == [200_000]
