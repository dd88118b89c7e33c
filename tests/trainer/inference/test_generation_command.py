"""The command line of ``generate``."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROMPT = "7 mice — "


@pytest.fixture
def document(trainer) -> Callable[..., dict[str, object]]:
    """The JSON document that ``generate`` prints with further arguments."""

    def printed(*arguments: str) -> dict[str, object]:
        answer = trainer("generate", "--prompt", PROMPT, "--tokens", "12", "--json", *arguments)
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    return printed


def test_the_newest_checkpoint_continues_the_prompt(saved: Callable[..., Path], tmp_path: Path) -> None:
    os.utime(saved("old"), (1, 1))
    newest = saved("new", seed=2)
    command = [sys.executable, "-m", "trainer", "generate", "--prompt", PROMPT, "--tokens", "12", "-o", "out.json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert result.stdout == PROMPT + written["text"] + "\n"
    assert written["checkpoint"] == str(newest.relative_to(tmp_path))
    assert written["schema_version"] == 1


def test_sampling_options_do_what_they_say(saved: Callable[..., Path], document: Callable[..., dict[str, object]]) -> None:
    saved("one")
    default = document()
    assert default["sampling"] == {"temperature": 0.8, "top_k": None, "top_p": 1.0, "seed": 0}
    assert default == document()
    assert default["text"] != document("--seed", "1")["text"]
    greedy = document("--temperature", "0")
    assert greedy["text"] != default["text"]
    assert greedy["text"] == document("--top-k", "1", "--seed", "9")["text"]
    assert greedy["text"] == document("--top-p", "1e-9", "--seed", "9")["text"]


def test_no_cache_gives_the_same_tokens(saved: Callable[..., Path], document: Callable[..., dict[str, object]]) -> None:
    saved("one")
    cached, uncached = document(), document("--no-cache")
    assert (cached["cache"], uncached["cache"]) == (True, False)
    assert cached["tokens"] == uncached["tokens"]


def test_a_checkpoint_is_named_by_run_or_folder(saved: Callable[..., Path], document: Callable[..., dict[str, object]]) -> None:
    folder = saved("one")
    saved("two", seed=2)
    by_run = document("--checkpoint", "one")
    assert by_run["text"] == document("--checkpoint", str(folder))["text"] == document("--checkpoint", str(folder.parent.parent))["text"]
    assert by_run["text"] != document("--checkpoint", "two")["text"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--prompt", ""], "--prompt: must not be empty"),
        ([], "--prompt"),
        (["--prompt", "x", "--temperature", "-1"], "--temperature: must be 0 or more"),
        (["--prompt", "x", "--top-p", "0"], "--top-p: must be above 0 and at most 1"),
        (["--prompt", "x", "--top-p", "1.5"], "--top-p: must be above 0 and at most 1"),
        (["--prompt", "x", "--top-k", "0"], "--top-k: must be 1 or more"),
        (["--prompt", "x", "--tokens", "0"], "--tokens"),
        (["--prompt", "x", "--checkpoint", "tow"], "'tow' is neither a folder nor a run"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(arguments: list[str], told: str, saved: Callable[..., Path], trainer, tmp_path: Path) -> None:
    saved("two")
    refused(trainer("generate", *arguments, "-o", "out.json"), told)
    assert not (tmp_path / "out.json").exists()


def test_no_run_at_all_is_told(trainer) -> None:
    refused(trainer("generate", "--prompt", "x"), "there is none under runs/")


@pytest.mark.parametrize("file", ["shard-00001-model-00001-of-00001.safetensors", "checkpoint.json", "tokenizer.json"])
def test_a_truncated_checkpoint_is_told(file: str, saved: Callable[..., Path], trainer) -> None:
    path = saved("cut") / file
    os.truncate(path, path.stat().st_size // 2)
    refused(trainer("generate", "--prompt", "x"), file)


def refused(answer, told: str) -> None:
    assert answer.code == 2
    assert answer.out == ""
    assert told in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_help_has_an_example(trainer) -> None:
    assert "python -m trainer generate --prompt" in trainer("generate", "--help").out
