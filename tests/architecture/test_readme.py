"""The README's commands are the real ones."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = ("simulator", "fabrics")


def blocks() -> list[str]:
    return re.findall(r"^```\n(.*?)^```", README, flags=re.S | re.M)


def commands() -> list[str]:
    """Lines of README blocks that call a package, without prompt sign and remark."""
    lines = [line.removeprefix("$ ").partition("  #")[0].strip() for block in blocks() for line in block.splitlines()]
    return [line for line in lines if line.startswith(("python -m ", "pip install "))]


def quick_commands() -> list[str]:
    found = [part.strip() for line in commands() for part in line.split("&&")]
    return [
        part for part in dict.fromkeys(found) if part.startswith(tuple(f"python -m {name} " for name in QUICK)) and ".json" not in part and ".yaml" not in part
    ]


def test_both_set_up_commands_stand_in_the_readme() -> None:
    assert "pip install -e . && python -m simulator predict --model tiny-moe --fabric spine-leaf" in README
    assert 'pip install -e ".[dev]" && python -m pytest -n 2' in README


def test_ci_installs_and_tests_as_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert '-e ".[dev]"' in script
    assert "\npython -m pytest -n 2\n" in script


@pytest.mark.parametrize("command", quick_commands())
def test_a_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_command_of_the_readme_exists() -> None:
    named = {tuple(shlex.split(part)[2:4]) for line in commands() for part in line.split("&&") if part.strip().startswith("python -m ")}
    packages = {package for package, *_ in named} - {"pytest"}
    for package in sorted(packages):
        text = subprocess.run([sys.executable, "-m", package, "--help"], capture_output=True, text=True).stdout
        for name, *rest in named:
            if name == package and rest:
                assert rest[0] in text, f"python -m {package} has no command {rest[0]}"


@pytest.mark.parametrize("shown", [block for block in blocks() if block.startswith(tuple(f"$ python -m {name} " for name in QUICK))])
def test_what_the_readme_shows_is_what_is_printed(shown: str) -> None:
    command, _, expected = shown.partition("\n")
    called = [sys.executable, *shlex.split(command.removeprefix("$ python "))]
    printed = words(subprocess.run(called, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    for part in expected.split("…\n"):
        assert words(part) in printed


def words(text: str) -> str:
    """Without rules and line breaks, which hang on the width of the terminal."""
    return " ".join(re.sub(r"[─━]+", " ", text).split())
