"""The log of a run: every record a line of JSON in ``log.jsonl``, and now and then a line of progress for the user."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configuration.errors import ConfigurationError
from configuration.files import write_atomically
from trainer.loop.evaluate import Validation
from trainer.loop.memory import RunMemory
from trainer.loop.tensorboard import Board

PROGRESS_INTERVAL_S = 5.0


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimizer step. Losses are means over its tokens, without coefficients; ``loss`` is the language model's alone."""

    step: int
    loss_nats_per_token: float
    load_balancing_loss: float | None
    router_z_loss: float | None
    gradient_norm: float
    learning_rate: float
    step_s: float
    peak_bytes: int | None = None
    """Highest allocation on the CUDA device so far, else highest resident size of the process; of the first rank."""
    expert_max_over_mean: float | None = None
    """Load of the busiest expert over the mean, in the layer where it is highest."""
    dead_experts: int | None = None
    """Experts of all layers that got no token in this step."""
    dropped_share: float | None = None
    """Share of all choices that found no row; None without a capacity."""


class Journal:
    """Takes the records of a run, writes them to ``file`` (None: nowhere) as they come, and tells ``log`` how it goes."""

    def __init__(self, file: Path | None, log: Callable[[str], None], *, steps: int, tokens_per_step: int, board: Board | None = None) -> None:
        self.log = log
        self.losses: list[float] = []
        """Language-model loss of every step, in nats per token."""
        self.dropped_shares: list[float] = []
        """Share of all choices that found no row, of every step of a model with a capacity."""
        self.elapsed_s = 0.0
        """Wall time of the steps alone: without evaluation and checkpoints."""
        self._file = file
        self._board = board
        self._steps = steps
        self._tokens_per_step = tokens_per_step
        self._shown_at_s = -PROGRESS_INTERVAL_S
        self._since_shown = (0, 0.0)

    def rewind(self, step: int) -> None:
        """Keep what is on file up to ``step``, for a run that goes on from there. Raises ConfigurationError when steps are missing."""
        kept = [] if self._file is None or step == 0 else [record for record in _read(self._file) if record["step"] <= step]
        # What comes after the last step comes again.
        records = [record for record in kept if record["step"] < self._steps or "gradient_norm" in record]
        steps = [record for record in records if "gradient_norm" in record]
        if [record["step"] for record in steps] != list(range(1, step + 1)):
            raise ConfigurationError(f"{self._file}: lacks records of the steps 1 to {step}, which the checkpoint has behind it")
        self.losses = [record["loss_nats_per_token"] for record in steps]
        self.dropped_shares = [share for record in steps if (share := record.get("dropped_share")) is not None]
        self.elapsed_s = sum(record["step_s"] for record in steps)
        if self._file is not None:
            write_atomically(self._file, "".join(f"{json.dumps(record)}\n" for record in records))
        if self._board is not None:
            self._board.begin_anew()
            for record in records:
                self._board.add(record)

    def close(self) -> None:
        """Write out what is waiting."""
        if self._board is not None:
            self._board.close()

    def step(self, record: StepRecord) -> None:
        """Note an optimizer step."""
        self.losses.append(record.loss_nats_per_token)
        if record.dropped_share is not None:
            self.dropped_shares.append(record.dropped_share)
        self.elapsed_s += record.step_s
        self._write(asdict(record) | {"tokens_per_s": self._tokens_per_step / record.step_s})
        self._since_shown = (self._since_shown[0] + 1, self._since_shown[1] + record.step_s)
        if record.step == self._steps or time.monotonic() - self._shown_at_s >= PROGRESS_INTERVAL_S:
            self.log(self._progress(record))
            self._shown_at_s = time.monotonic()
            self._since_shown = (0, 0.0)

    def validation(self, step: int, validation: Validation) -> None:
        """Note the loss on held-out text after ``step`` steps."""
        error = validation.standard_error_nats_per_token
        self._write(
            {
                "step": step,
                "validation_loss_nats_per_token": validation.loss_nats_per_token,
                "validation_standard_error_nats_per_token": error,
                "validation_tokens": validation.tokens,
                "expert_load_entropy_nats": validation.expert_load_entropy_nats,
                "expert_counts_LE": validation.counts_LE,
            }
        )
        shown = "" if error is None else f" ± {error:.4f}"
        self.log(f"step {step:,}/{self._steps:,}  validation loss {validation.loss_nats_per_token:.4f}{shown} on {validation.tokens:,} tokens")

    def memory(self, step: int, memory: RunMemory) -> None:
        """Note the memory of the run by category."""
        self._write({"step": step} | asdict(memory))
        self.log(str(memory))

    def _write(self, record: dict[str, Any]) -> None:
        # Opened for every record: after a kill at any moment all records but the last are whole.
        finite = {name: _finite(value) for name, value in record.items()}
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite, allow_nan=False) + "\n")
        if self._board is not None:
            self._board.add(finite)

    def _progress(self, record: StepRecord) -> str:
        steps, seconds = self._since_shown
        step_s = seconds / steps
        load = "" if record.expert_max_over_mean is None else f"  busiest expert {record.expert_max_over_mean:.2f} x the mean"
        load += f"  {record.dead_experts} dead" if record.dead_experts else ""
        load += f"  {record.dropped_share:.1%} dropped" if record.dropped_share else ""
        return (
            f"step {record.step:,}/{self._steps:,}  loss {record.loss_nats_per_token:.4f}  {self._tokens_per_step / step_s:,.0f} tokens/s  "
            f"learning rate {record.learning_rate:.2e}  gradient norm {record.gradient_norm:.2f}{load}  {_minutes((self._steps - record.step) * step_s)} left"
        )


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: they are written as words."""
    return str(value) if isinstance(value, float) and not abs(value) < float("inf") else value


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    records = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            # A kill cut this one off, or the file was edited; a step that is really missing is found by its number.
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
