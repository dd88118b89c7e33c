"""A data set of Hugging Face's ``datasets``: local JSON lines, parquet, CSV and text files, or one of the hub by its name."""

from collections.abc import Iterator
from typing import Any

from configuration.errors import ConfigurationError
from trainer.specs import HuggingFaceDataset

ROWS = 1024
"""Rows decoded at a time; the rest stays on disk (Arrow, memory-mapped)."""


def documents(source: HuggingFaceDataset) -> Iterator[str]:
    """The texts of ``source.column``, in the order of the data set; empty ones are left out."""
    loaded = _load(source)
    columns: list[str] = loaded.column_names
    if source.column not in columns:
        raise ConfigurationError(f"data source hugging-face: {source.path} has no column {source.column!r} (legal: {', '.join(sorted(columns))})")
    for rows in loaded.select_columns([source.column]).iter(ROWS):
        for text in rows[source.column]:
            if not isinstance(text, str | None):
                raise ConfigurationError(f"data source hugging-face: column {source.column!r} of {source.path} holds {type(text).__name__}, expected text")
            if text:
                yield text


def _load(source: HuggingFaceDataset) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigurationError("data source hugging-face: the package datasets is not installed (pip install 'moe-ledger[hf]')") from None
    datasets.disable_progress_bars()
    files = list(source.data_files) or None
    try:
        return datasets.load_dataset(source.path, source.name, data_files=files, split=source.split, revision=source.revision)
    except Exception as error:  # the library raises many kinds for what a user can get wrong, from file systems and networks too
        cause = error.__cause__ or error
        raise ConfigurationError(f"data source hugging-face: {source.path} cannot be loaded: {type(cause).__name__}: {str(cause)[:300]}") from None
