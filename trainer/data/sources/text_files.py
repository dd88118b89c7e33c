"""The user's own text files."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from configuration.errors import ConfigurationError
from trainer.specs import TextFiles


def documents(source: TextFiles) -> Iterator[str]:
    """Files, paragraphs or lines, in the order in which the paths are given; files of a folder or glob are sorted."""
    for file in [file for path in source.paths for file in _files(path)]:
        text = _read(file)
        if source.document == "file":
            parts = [text]
        elif source.document == "paragraph":
            parts = [f"{part.strip()}\n" for part in re.split(r"\n\s*\n", text) if part.strip()]
        else:
            parts = [line for line in text.splitlines(keepends=True) if line.strip()]
        yield from filter(None, parts)


def _files(path: str) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    if Path(path).is_dir():
        found = [file for file in sorted(Path(path).rglob("*")) if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    elif glob.has_magic(path):
        found = [Path(name) for name in sorted(glob.glob(path, recursive=True))]
    else:
        raise ConfigurationError(f"data source text-files: paths: {path!r} does not exist")
    files = [file for file in found if file.is_file()]
    if not files:
        raise ConfigurationError(f"data source text-files: paths: {path!r} holds no file")
    return files


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"data source text-files: {file} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigurationError(f"data source text-files: {file} cannot be read: {error.strerror}") from None
