"""``python corpus.py WHEELS FOLDER``: each Python file of the wheels once, as text, under a name that is a hash of it.

Nothing of the wheels is installed or run. A reader in the order of the names sees packages well mixed.
"""

import hashlib
import sys
import zipfile
from pathlib import Path


def main() -> None:
    """Write the corpus and say how large it is."""
    wheels, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    size_bytes = files = 0
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(name for name in archive.namelist() if name.endswith(".py")):
                content = archive.read(name)
                target = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.txt"
                if not content or not _is_text(content) or target.exists():
                    continue
                target.write_bytes(content)
                files, size_bytes = files + 1, size_bytes + len(content)
    print(f"{files:,} files, {size_bytes:,} bytes")


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


if __name__ == "__main__":
    main()
