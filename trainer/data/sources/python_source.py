"""The source text of the running Python's standard library."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from configuration.errors import ConfigurationError


def documents() -> Iterator[str]:
    """One document a file, in the order of their paths; the few test files that are deliberately no UTF-8 are left out."""
    library = Path(sysconfig.get_paths()["stdlib"])
    installed_packages = {"site-packages", "dist-packages"}
    files = sorted(path for path in library.rglob("*.py") if not installed_packages & set(path.relative_to(library).parts))
    if not files:
        raise ConfigurationError(f"data source python-source: this Python has no library source under {library}")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text:
            yield text
