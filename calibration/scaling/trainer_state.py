"""A row of the run table from the ``trainer_state.json`` that Hugging Face's Trainer writes beside every checkpoint.

The file says nothing of the model: parameters come from the user. Its ``total_flos`` is an estimate by the same rule of 6 N D and is left out.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configuration.errors import ConfigurationError
from configuration.files import read_json
from configuration.spec import validated
from simulator.records.run_table import RunRow


def row_of(path: Path, values: Mapping[str, Any], tokens_per_step: float | None = None) -> RunRow:
    """The run's last evaluation as a row; ``values`` are the fields that the file lacks (run, parameters, experts).

    Tokens are ``num_input_tokens_seen`` where the Trainer counted them, else ``tokens_per_step`` times the step. Warm-up and the last learning rate come from
    the log. Raises ConfigurationError in one line when the file is none of the Trainer's, was never evaluated, or its tokens cannot be known.
    """
    history = read_json(path, "trainer-state").get("log_history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise ConfigurationError(f"{path}: no trainer_state.json (no list log_history)")
    evaluated = [entry for entry in history if isinstance(entry.get("eval_loss"), int | float)]
    if not evaluated:
        raise ConfigurationError(f"{path}: no eval_loss in log_history: the run was never evaluated")
    last = evaluated[-1]
    tokens = _tokens(path, last, tokens_per_step)
    per_step = tokens / max(1, int(last.get("step", 0)))
    found = {
        **values,
        "tokens": tokens,
        "validation_loss_nats_per_token": last["eval_loss"],
        **_schedule(history, per_step),
    }
    return validated(RunRow, found, str(path))


def _tokens(path: Path, entry: Mapping[str, Any], tokens_per_step: float | None) -> float:
    counted, step = entry.get("num_input_tokens_seen"), entry.get("step")
    if isinstance(counted, int | float) and counted > 0:
        return float(counted)
    if tokens_per_step is None or not isinstance(step, int | float) or step <= 0:
        raise ConfigurationError(f"{path}: tokens were not counted (num_input_tokens_seen): give --tokens-per-step")
    return float(step) * tokens_per_step


def _schedule(history: Sequence[Mapping[str, Any]], tokens_per_step: float) -> dict[str, Any]:
    """Warm-up tokens, highest rate and share of it at the end, as far as the log holds learning rates."""
    rates = [(int(entry["step"]), float(entry["learning_rate"])) for entry in history if {"step", "learning_rate"} <= set(entry)]
    highest = max((rate for _, rate in rates), default=0.0)
    if not (math.isfinite(highest) and highest > 0):
        return {}
    warm = next(step for step, rate in rates if rate == highest)
    # The first logged rate is the highest when there was no warm-up, or one shorter than the logging interval.
    warmup = 0.0 if warm == rates[0][0] else warm * tokens_per_step
    return {"warmup_tokens": warmup, "peak_learning_rate": highest, "final_learning_rate_share": rates[-1][1] / highest}
