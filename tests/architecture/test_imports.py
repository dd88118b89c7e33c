"""Who may import whom: data goes one way, and torch stays in the trainer."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configuration", "fabrics", "simulator", "trainer", "calibration", "reports")
ALLOWED = {
    "configuration": set(),
    "fabrics": {"configuration"},
    "simulator": {"configuration", "fabrics"},
    "trainer": {"configuration", "simulator"},
    "calibration": {"configuration", "simulator", "fabrics"},
    "reports": {"configuration", "simulator", "fabrics", "calibration"},
}
TRAINER_MAY_TAKE_FROM_SIMULATOR = ("simulator.specs", "simulator.records", "simulator.components", "simulator.units", "simulator.machine")
HEAVY = {"torch"}


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_lies_upstream(package: str) -> None:
    for path in files(package):
        for module in imported_modules(path):
            top = module.split(".")[0]
            if top in PACKAGES and top != package:
                assert top in ALLOWED[package], f"{path.relative_to(ROOT)} imports {module}"


def test_the_trainer_takes_only_specifications_and_records_from_the_simulator() -> None:
    for path in files("trainer"):
        for module in imported_modules(path):
            if module.startswith("simulator"):
                assert module.startswith(TRAINER_MAY_TAKE_FROM_SIMULATOR), f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "trainer"])
def test_torch_is_imported_by_the_trainer_alone(package: str) -> None:
    for path in files(package):
        assert not {module.split(".")[0] for module in imported_modules(path)} & HEAVY, path.relative_to(ROOT)


def test_records_are_free_of_fabrics_and_networkx() -> None:
    code = "import simulator.records.step_report, simulator.records.run_table, sys; assert not {'networkx', 'fabrics', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_predict_loads_neither_torch_nor_scipy_nor_matplotlib() -> None:
    code = (
        "import sys, contextlib, io\n"
        "sys.argv = ['simulator', 'predict', '--model', 'tiny-moe', '--fabric', 'spine-leaf', '--json']\n"
        "import runpy\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    try: runpy.run_module('simulator', run_name='__main__')\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'scipy', 'matplotlib', 'rich', 'numpy.ma', 'numpy.random'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_outgrows_four_hundred_lines(package: str) -> None:
    for path in files(package):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path.relative_to(ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_has_a_short_readme(package: str) -> None:
    readme = ROOT / package / "README.md"
    assert readme.is_file()
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 100
