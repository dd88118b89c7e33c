"""The run table: one row per training run, from which scaling laws are fitted.

``python -m trainer sweep`` appends to it, ``python -m calibration scaling`` reads it; foreign tables enter through a column mapping.
Column names carry their units; a loss is the mean over validation tokens in nats, without auxiliary terms.
"""

import csv
import fcntl
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configuration.errors import ConfigurationError, unknown
from configuration.files import write_atomically
from configuration.spec import Spec, validated

SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
"""Counts such as ``2.8B`` are common in foreign tables."""

ALIASES = {
    "n": "active_parameters",
    "d": "tokens",
    "loss": "validation_loss_nats_per_token",
    "c": "training_flops",
    "flops": "training_flops",
    "e": "experts",
    "k": "top_k",
    "g": "granularity",
    "u": "unique_tokens",
    "total": "total_parameters",
}
"""Short names of the fields that a column mapping may use."""


def _quantity(value: object) -> object:
    """Read ``2.8B`` as 2.8e9; leave every other value to the type's own check."""
    if isinstance(value, str) and value and value[-1] in SUFFIXES:
        try:
            return float(value[:-1]) * SUFFIXES[value[-1]]
        except ValueError:
            return value
    return value


Quantity = Annotated[PositiveFloat, BeforeValidator(_quantity)]
Share = Annotated[float, Field(ge=0, le=1)]


class RunRow(Spec):
    """One finished training run, or one evaluated checkpoint of it.

    ``total_parameters`` = ``embedding_parameters`` (input and output tables) + ``non_embedding_parameters``; ``active_parameters`` are those that one token
    passes through, embeddings included. ``training_flops`` are those really spent. Only the fields without a default are needed for a fit.
    """

    run: str = Field(min_length=1)
    parent_run: str | None = None
    settings: str | None = None
    seed: NonNegativeInt | None = None
    total_parameters: Quantity
    active_parameters: Quantity
    non_embedding_parameters: Quantity | None = None
    embedding_parameters: Annotated[NonNegativeFloat, BeforeValidator(_quantity)] | None = None
    experts: PositiveInt = 1
    top_k: PositiveInt = 1
    granularity: PositiveFloat = 1.0
    layers: PositiveInt | None = None
    vocabulary: PositiveInt | None = None
    sequence_tokens: PositiveInt | None = None
    batch_tokens: PositiveInt | None = None
    tokens: Quantity
    unique_tokens: Quantity | None = None
    training_flops: Quantity | None = None
    elapsed_s: NonNegativeFloat | None = None
    schedule: str | None = None
    warmup_tokens: Annotated[NonNegativeFloat, BeforeValidator(_quantity)] | None = None
    peak_learning_rate: PositiveFloat | None = None
    final_learning_rate_share: Share | None = None
    validation_loss_nats_per_token: PositiveFloat
    validation_loss_standard_error_nats_per_token: NonNegativeFloat | None = None
    validation_set: str | None = None
    bits_per_byte: PositiveFloat | None = None
    expert_load_entropy_nats: NonNegativeFloat | None = None
    dropped_tokens_share: Share | None = None
    sample_text: str | None = None
    repeated_4gram_share: Share | None = None

    @model_validator(mode="after")
    def _counts_agree(self) -> "RunRow":
        if self.active_parameters > self.total_parameters * (1 + 1e-9):
            raise ValueError("active_parameters exceed total_parameters")
        if self.unique_tokens is not None and self.unique_tokens > self.tokens * (1 + 1e-9):
            raise ValueError("unique_tokens exceed tokens")
        if self.top_k > self.experts:
            raise ValueError("top_k exceeds experts")
        return self


COLUMNS = tuple(RunRow.model_fields)
REQUIRED = tuple(name for name, field in RunRow.model_fields.items() if field.is_required())


@dataclass(frozen=True)
class RunTable:
    """Checked rows, and in ``notes`` everything that was derived instead of read."""

    rows: tuple[RunRow, ...]
    notes: tuple[str, ...]


def parse_columns(text: str) -> dict[str, str]:
    """Read ``n=Model Size,flops=Training FLOP,loss=loss`` as {field of RunRow: column of the file}.

    Raises ConfigurationError for an unknown field, listing the legal ones.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        short, equals, column = part.partition("=")
        name = ALIASES.get(short.strip(), short.strip())
        if not equals or not column.strip():
            raise ConfigurationError(f"--columns {part!r}: expected FIELD=COLUMN, for one n=Model Size,d=tokens,loss=loss")
        if name not in COLUMNS:
            raise unknown("--columns", short.strip(), [*ALIASES, *COLUMNS])
        if name in columns:
            raise ConfigurationError(f"--columns: {name} is mapped twice")
        columns[name] = column.strip()
    return columns


def read_rows(path: Path) -> list[RunRow]:
    """All rows of a run table. Raises ConfigurationError naming line and field of the first fault."""
    return list(read_table(path).rows)


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> RunTable:
    """Read a run table, or with ``columns`` ({field: column}) a foreign one.

    A foreign table may lack names of runs (its line numbers serve), total parameters (the active ones serve) and tokens (FLOPs / 6N serve); each is noted.
    Raises ConfigurationError in one line for absent columns, values that are not legal, and the same run given twice with the same tokens.
    """
    header, records = _records(path)
    mapping = dict(columns) if columns else {name: name for name in COLUMNS if name in header}
    absent = [column for column in mapping.values() if column not in header]
    if absent:
        raise ConfigurationError(f"{path}: no column {absent[0]!r} (columns: {', '.join(header)})")
    notes = _fill_gaps(path, mapping, foreign=columns is not None)
    rows = []
    seen: dict[tuple[str, float], int] = {}
    for line, record in records:
        values = {name: record[column].strip() for name, column in mapping.items() if column in record and record[column].strip()}
        row = validated(RunRow, _completed(values, line, mapping, path), f"{path} line {line}")
        key = (row.run, row.tokens)
        if key in seen:
            raise ConfigurationError(f"{path} line {line}: run {row.run!r} with {row.tokens:g} tokens stands already in line {seen[key]}")
        seen[key] = line
        rows.append(row)
    if not rows:
        raise ConfigurationError(f"{path}: no rows")
    return RunTable(tuple(rows), notes)


def _records(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or [])
            records = []
            for record in reader:
                if None in record or None in record.values():
                    raise ConfigurationError(f"{path} line {reader.line_num}: expected {len(header)} values, one per column")
                records.append((reader.line_num, record))
    except FileNotFoundError:
        raise ConfigurationError(f"runs: file {str(path)!r} does not exist") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ConfigurationError(f"{path}: not readable as CSV: {error}") from None
    if not header:
        raise ConfigurationError(f"{path}: empty file (columns expected: {', '.join(REQUIRED)})")
    return header, records


def _fill_gaps(path: Path, mapping: dict[str, str], *, foreign: bool) -> tuple[str, ...]:
    notes = []
    derivable = []
    if foreign:
        if "run" not in mapping:
            derivable.append("run")
        if "total_parameters" not in mapping:
            derivable.append("total_parameters")
            notes.append("total parameters are taken equal to the active ones (no column total)")
        if "tokens" not in mapping and "training_flops" in mapping:
            derivable.append("tokens")
            notes.append("tokens are derived as D = FLOPs / (6 N) (no column d)")
    missing = [name for name in REQUIRED if name not in mapping and name not in derivable]
    if missing:
        hint = "" if foreign else "; a foreign table needs --columns n=..,d=..,loss=.."
        raise ConfigurationError(f"{path}: no column for {', '.join(missing)}{hint}")
    return tuple(notes)


def _completed(values: dict[str, str], line: int, mapping: Mapping[str, str], path: Path) -> dict[str, object]:
    """The record with what a foreign table lacks; an empty required cell is told by the row's own check."""
    row: dict[str, object] = dict(values)
    if "run" not in mapping:
        row["run"] = f"line {line}"
    if "total_parameters" not in mapping and "active_parameters" in row:
        row["total_parameters"] = row["active_parameters"]
    if "tokens" not in mapping and "active_parameters" in row and "training_flops" in row:
        given = [_number(row[name], path, line, name) for name in ("training_flops", "active_parameters")]
        row["tokens"] = given[0] / (6 * given[1])
    if "experts" in row:
        row["experts"] = _number(row["experts"], path, line, "experts")
    return row


def _number(value: object, path: Path, line: int, name: str) -> float:
    try:
        number = float(str(_quantity(value)))
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ConfigurationError(f"{path} line {line}: {name}: expected a positive number, got {value!r}")
    return number


def write_rows(path: Path, rows: Sequence[RunRow]) -> None:
    """Write a run table with every column, atomically; floats keep all their digits."""
    lines = [COLUMNS, *(["" if value is None else value for value in row.model_dump().values()] for row in rows)]
    write_atomically(path, "".join(map(_line, lines)))


def _line(values: Sequence[object]) -> str:
    """One record. A terminator of both characters makes the writer quote texts that hold either; files keep plain newlines."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n") + "\n"


def append_row(path: Path, row: RunRow) -> None:
    """Add ``row`` to the table at ``path``, made when absent; a row of the same run is replaced, so that a repeated call changes nothing.

    Safe against a crash (the file is replaced whole) and against another process appending at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path.parent):
        rows = read_rows(path) if path.exists() else []
        names = [known.run for known in rows]
        if row.run in names:
            rows[names.index(row.run)] = row
        else:
            rows.append(row)
        write_rows(path, rows)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it leaves no file behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
