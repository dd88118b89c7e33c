"""A corpus of source text from installed Python packages: ``python corpus.py FOLDER [PACKAGE ...]``.

Writes each file of the packages once (equal files are dropped) under a name that is a hash of its text, so that a reader in the order of the names sees
packages well mixed, and prints the versions.
"""

import hashlib
import sys
from importlib import metadata, util
from pathlib import Path

PACKAGES = ("torch", "transformers", "sympy", "pandas", "scipy", "numpy", "matplotlib", "networkx")


def main() -> None:
    """Write the corpus."""
    folder, packages = Path(sys.argv[1]), sys.argv[2:] or PACKAGES
    folder.mkdir(parents=True, exist_ok=True)
    size_bytes = 0
    for package in packages:
        found = util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        for file in sorted(Path(found.origin).parent.rglob("*.py")):
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            target = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
            if text and not target.exists():
                target.write_text(text, encoding="utf-8")
                size_bytes += len(text.encode())
        print(package, metadata.version(package), size_bytes)


if __name__ == "__main__":
    main()
