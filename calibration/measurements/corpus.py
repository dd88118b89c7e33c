"""A corpus of source text from installed Python packages: ``python corpus.py FOLDER [PACKAGE ...]``.

Writes each file of the packages once (equal files are dropped) under a name that is a hash of its text, so that a reader in the order of the names sees
packages well mixed. Prints the version of each package, or that it is not installed, and the bytes so far.
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
    distributions = metadata.packages_distributions()
    size_bytes = 0
    for package in packages:
        found = util.find_spec(package)
        if found is None or found.origin is None:
            print(package, "is not installed")
            continue
        for file in sorted(Path(found.origin).parent.rglob("*.py")):
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            target = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
            if text and not target.exists():
                target.write_text(text, encoding="utf-8")
                size_bytes += len(text.encode())
        print(package, metadata.version(distributions[package][0]), size_bytes)


if __name__ == "__main__":
    main()
