"""An installed wheel has what the programs read: presets, templates and style sheets."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
NOT_READ_BY_PROGRAMS = ("calibration/measurements/", "reports/findings/")
LEFT_BY_PYTHON = (".py", ".pyc")


def test_every_file_beside_the_code_is_package_data() -> None:
    packages = [ROOT / pattern.removesuffix("*") for pattern in SETTINGS["packages"]["find"]["include"]]
    files = [path for package in packages for path in package.rglob("*") if path.is_file() and path.suffix not in LEFT_BY_PYTHON]
    read = [path for path in files if not path.relative_to(ROOT).as_posix().startswith(NOT_READ_BY_PROGRAMS)]
    assert {path.suffix for path in read} >= {".yaml", ".j2", ".css"}
    patterns = SETTINGS["package-data"]["*"]
    assert [path.relative_to(ROOT).as_posix() for path in read if not any(fnmatch(path.name, pattern) for pattern in patterns)] == []
