"""The command line of ``inspect``."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {"inspection.json", "attention-layer-0.png", "attention-layer-1.png", "attention-layer-2.png", "expert-load.png", "loss-by-position.png"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_tables_figures_and_document_of_the_newest_checkpoint(saved: Callable[..., Path], tmp_path: Path) -> None:
    os.utime(saved("old"), (1, 1))
    newest = saved("new", seed=2)
    result = subprocess.run([sys.executable, "-m", "trainer", "inspect"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    folder = newest.parent.parent / "inspection" / newest.name
    assert names(folder) == FILES
    for name in FILES - {"inspection.json"}:
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        assert min(struct.unpack(">II", content[16:24])) > 200
    document = json.loads((folder / "inspection.json").read_text())
    assert document["checkpoint"] == str(newest.relative_to(tmp_path))
    assert document["loss_by_position"]["sequence"] == 32
    assert [load["layer"] for load in document["expert_load"]] == [1, 2]
    assert document["attention"]["text_source"] == "validation data"
    for words in ("expert load", "loss by position", "attention, mean over heads", "The loss"):
        assert words in result.stdout


def test_options_do_what_they_say(saved: Callable[..., Path], trainer, tmp_path: Path) -> None:
    saved("one")
    saved("two", seed=2)
    answer = trainer("inspect", "--checkpoint", "one", "--text", "$5 a cat", "--tokens", "64", "-o", "looks", "--json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert document == json.loads((tmp_path / "looks" / "inspection.json").read_text())
    assert names(tmp_path / "looks") == FILES
    assert "runs/one" in document["checkpoint"]
    assert document["attention"]["tokens"] == ["$", "5", "·", "a", "·", "c", "a", "t"]
    assert document["attention"]["text_source"] == "--text"
    assert (document["validation_tokens"], document["loss_by_position"]["windows"]) == (64, 2)
    assert document["of_validation_tokens"] > 64


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--checkpoint", "tow"], "'tow' is neither a folder nor a run"),
        (["--text", ""], "--text: must not be empty"),
        (["--tokens", "0"], "--tokens"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(arguments: list[str], told: str, saved: Callable[..., Path], trainer, tmp_path: Path) -> None:
    saved("two")
    refused(trainer("inspect", *arguments, "-o", "looks"), told)
    assert not (tmp_path / "looks").exists()


def test_a_truncated_checkpoint_is_told(saved: Callable[..., Path], trainer, tmp_path: Path) -> None:
    path = next(saved("cut").glob("*.safetensors"))
    os.truncate(path, path.stat().st_size // 2)
    refused(trainer("inspect", "-o", "looks"), "safetensors has")
    assert not (tmp_path / "looks").exists()


def test_validation_data_that_changed_are_told(saved: Callable[..., Path], trainer, tmp_path: Path) -> None:
    saved("one")
    with (tmp_path / "mice.txt").open("a") as file:
        file.write("And a dog.\n")
    refused(trainer("inspect"), "the text or the tokenizer has changed")


def test_a_file_in_the_folders_place_is_told(saved: Callable[..., Path], trainer, tmp_path: Path) -> None:
    saved("one")
    (tmp_path / "looks").write_text("mine")
    refused(trainer("inspect", "-o", "looks"), "looks is a file")
    assert (tmp_path / "looks").read_text() == "mine"


def refused(answer, told: str) -> None:
    assert answer.code == 2
    assert answer.out == ""
    assert told in answer.err
    assert len([line for line in answer.err.splitlines() if line.startswith("error: ")]) == 1
    assert answer.err.splitlines()[-1].startswith("error: ")


def test_help_has_an_example(trainer) -> None:
    assert "python -m trainer inspect --text" in trainer("inspect", "--help").out
