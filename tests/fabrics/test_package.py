"""Promises of the package as a whole: light imports, commands of the README."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "fabrics" / "README.md"
COMMANDS = [line.split("#")[0].strip() for line in README.read_text().splitlines() if line.startswith("    python -m fabrics")]


def test_pricing_imports_no_solver_and_no_drawing() -> None:
    code = (
        "import sys; from fabrics.cost import cost; from fabrics.loading import load_fabric; "
        "cost(load_fabric('spine-leaf'), 'all-to-all', [tuple(range(16))], 1e6); "
        "print(sorted({'scipy', 'matplotlib', 'torch', 'rich', 'typer', 'simulator'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_nothing_downstream_is_imported() -> None:
    for file in README.parent.rglob("*.py"):
        text = file.read_text()
        assert not any(f"import {name}" in text or f"from {name}" in text for name in ("simulator", "trainer", "calibration", "reports", "torch")), file


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_run(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.split(">")[0])[1:]
    result = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout
