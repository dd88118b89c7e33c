"""Loss curves from the logs that runs write, one JSON object a line."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configuration.errors import ConfigurationError
from simulator.records.run_table import RunRow

LOG_FILE = "log.jsonl"
STEP, LOSS = "step", "loss_nats_per_token"
NEAR = 0.05
"""A first loss within this share of ln V counts as near it."""


@dataclass(frozen=True)
class Curve:
    """Training loss of one run against the tokens it had seen."""

    run: str
    tokens: tuple[float, ...]
    losses: tuple[float, ...]
    vocabulary: int | None

    @property
    def start(self) -> float:
        """Loss of the first logged step."""
        return self.losses[0]

    @property
    def starts_near(self) -> bool | None:
        """Whether the first loss is near ln V, that of a model that knows nothing; None when V is not known."""
        return None if self.vocabulary is None else abs(self.start / math.log(self.vocabulary) - 1) <= NEAR


def curves(rows: Sequence[RunRow], folder: Path) -> tuple[list[Curve], list[str]]:
    """Curves of the rows whose ``<run>/log.jsonl`` lies in ``folder``, and the names of the others.

    Raises ConfigurationError when no row has a log there, or a log is not readable.
    """
    found, absent = [], []
    for row in rows:
        path = folder / row.run / LOG_FILE
        if path.is_file():
            found.append(read(path, row))
        else:
            absent.append(row.run)
    if not found:
        raise ConfigurationError(f"--logs {folder}: no log of any run of the table (expected {folder / rows[0].run / LOG_FILE} and so on)")
    return found, absent


def read(path: Path, row: RunRow) -> Curve:
    """One log. Lines without a training loss (evaluations, memory) and losses that are not finite are passed over, and a line that a kill cut off.

    Tokens are steps times the row's ``batch_tokens``; where it has none, its ``tokens`` are spread over the logged steps.
    """
    steps, losses = [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get(STEP), int) and isinstance(entry.get(LOSS), float):
            steps.append(entry[STEP])
            losses.append(entry[LOSS])
    if not losses:
        raise ConfigurationError(f"{path}: no line with {STEP} and {LOSS}")
    per_step = row.batch_tokens or row.tokens / steps[-1]
    return Curve(row.run, tuple(step * per_step for step in steps), tuple(losses), row.vocabulary)
