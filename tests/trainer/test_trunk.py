"""Cooldown branches off one trunk are the runs that they would have been alone."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator.records.run_table import RunRow, read_rows
from trainer.generation import Completion
from trainer.loop.run import RunResult
from trainer.sweep.grid import points
from trainer.sweep.row import row_of
from trainer.sweep.trunk import branching_step, train_trunk, trunks

GRID = """
grids:
- - - {model.width: 16, model.blocks.0.count: 1}
    - {model.width: 32, model.blocks.0.count: 2}
  - - {training.tokens: 512}
    - {training.tokens: 1024}
    - {training.tokens: 2048}
"""
FIELDS = (
    "--set", "model.vocabulary=260", "--set", "model.blocks.0.mixer.heads=2", "--set", "model.blocks.0.mixer.kv_heads=2",
    "--set", "model.blocks.0.mixer.head_width=8", "--set", "model.blocks.0.feed_forward.expert_width=16", "--set", "model.blocks.0.feed_forward.experts=2",
    "--set", "data.tokenizer=bytes", "--set", "plan.sequence=32", "--set", "plan.micro_batch=2",
    "--set", "training.schedule={kind: constant, warmup_steps: 3, cooldown_fraction: 0.25}",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("\n\n".join(f"Paragraph {number} says something of its own, in a few plain words." for number in range(400)))
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def command(*words: str) -> list[str]:
    source = ("--data", "text-files", "--set", "data.sources=[{kind: text-files, paths: [text.txt], document: paragraph}]")
    return [sys.executable, "-m", "trainer", "sweep", "--threads", "1", *source, *FIELDS, *words]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, cwd=folder, env=environment(folder))


def losses(rows: list[RunRow]) -> dict[tuple[int, float], float]:
    return {(int(row.layers or 0), row.tokens): row.validation_loss_nats_per_token for row in rows}


def test_branches_equal_runs_made_alone_and_processes_share_the_grid(folder: Path) -> None:
    done = sweep(folder, "--runs", "branches.csv", "--grid", "grid.yaml", "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["trained"]) == 6
    rows = read_rows(folder / "branches.csv")
    longest = {row.layers: row.run for row in rows if row.tokens == 2048}
    assert all(row.parent_run == (None if row.tokens == 2048 else longest[row.layers]) for row in rows)
    assert {(row.warmup_tokens, row.final_learning_rate_share) for row in rows} == {(192, 0.0)}
    log = [json.loads(line) for line in (folder / "runs" / "sweep-branches" / rows[0].run / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "gradient_norm" in entry] == list(range(1, int(rows[0].tokens) // 64 + 1))
    # The same lengths one by one: a sweep of a single length has no trunk to share.
    for tokens in (512, 1024):
        alone = sweep(folder, "--runs", "alone.csv", "--set", "model.width=16", "--set", "model.blocks.0.count=1", "--set", f"training.tokens={tokens}")
        assert alone.returncode == 0, alone.stderr
    found = losses(rows)
    for key, loss in losses(read_rows(folder / "alone.csv")).items():
        assert loss == found[key]
    again = sweep(folder, "--runs", "branches.csv", "--grid", "grid.yaml", "--json")
    assert json.loads(again.stdout)["already_there"] == 6
    planned = json.loads(sweep(folder, "--runs", "branches.csv", "--grid", "grid.yaml", "--dry-run", "--json").stdout)
    # Lengths 1, 2, 4 in units of the shortest: 7 alone; 4 and two cooldowns of a quarter, 4.75, with a trunk.
    assert planned["flops_with_shared_trunks"] == pytest.approx(4.75 / 7 * sum(run["training_flops"] for run in planned["runs"]))


@pytest.mark.slow
def test_an_interrupted_trunk_goes_on_where_it_was(folder: Path) -> None:
    words = ("--set", "model.width=16", "--set", "model.blocks.0.count=1", "--set", "training.tokens=640,64000,96000")
    late = sweep(folder, "--runs", "late.csv", *words, "--minutes", "0", "--json")
    assert late.returncode == 0
    assert json.loads(late.stdout)["trained"] == []
    process = subprocess.Popen(command("--runs", "cut.csv", *words), cwd=folder, env=environment(folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 120
    while not (folder / "cut.csv").exists() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    before = read_rows(folder / "cut.csv")
    assert len(before) < 3
    assert sweep(folder, "--runs", "cut.csv", *words).returncode == 0
    after = read_rows(folder / "cut.csv")
    assert after[: len(before)] == before
    assert sweep(folder, "--runs", "whole.csv", *words).returncode == 0
    assert losses(after) == losses(read_rows(folder / "whole.csv"))


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_alone(folder: Path) -> None:
    words = ("--set", "training.tokens=512", "--set", "training.learning_rate=1e-3,1e30", "--processes", "2")
    done = sweep(folder, "--runs", "t.csv", *words)
    assert done.returncode == 1
    assert "1 of 2 runs were made" in done.stderr
    assert [row.peak_learning_rate for row in read_rows(folder / "t.csv")] == [1e-3]


def test_a_trunk_cut_in_its_own_cooldown_goes_on_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    fields = [
        *FIELDS[1::2], "data.sources=[{kind: text-files, paths: [text.txt], document: paragraph}]", "model.width=16", "model.blocks.0.count=1",
        "model.blocks.0.feed_forward.capacity_factor=0.5", "training.tokens=512,2560", "training.tensorboard=true",
    ]  # fmt: skip
    (trunk,) = trunks(points(fields, model="tiny-moe", data="text-files", training="basic", plan=None, cuda=False))
    done: list[RunResult] = []
    asked = itertools.count(8)
    log: list[str] = []
    ended = train_trunk(trunk, trunk.branches, folder / "runs", log.append, lambda _, result: done.append(result), lambda: bool(done) and next(asked) >= 40)
    assert not ended
    assert len(done) == 1
    (left,) = trunk.branches[1:]
    assert branching_step(left) == 30
    assert train_trunk(trunk, [left], folder / "runs", log.append, lambda _, result: done.append(result), lambda: False)
    went_on = next(line for line in log if line.startswith("going on after step "))
    assert 30 < int(went_on.split()[4]) < 40
    assert not any("starts anew" in line for line in log)
    sample = Completion("", "", (), ended=False)
    for point, result, steps in zip(trunk.branches, done, (8, 40), strict=True):
        # Every token chooses both experts, and each has room for half of them.
        assert row_of(point, result, sample, None).dropped_tokens_share == 0.5
        board = accumulator.EventAccumulator(str(folder / "runs" / point.name / "tensorboard")).Reload()
        assert [event.step for event in board.Scalars("training/gradient_norm")] == list(range(1, steps + 1))


@pytest.mark.parametrize("content", ["grids: []", "grids: [[[{widht: 3}]]]", "- 1", "grids: [[{model.width: 3}]]"])
def test_a_grid_file_of_another_shape_is_told_in_one_line(folder: Path, content: str) -> None:
    (folder / "grid.yaml").write_text(content)
    done = sweep(folder, "--runs", "t.csv", "--grid", "grid.yaml")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "grid.yaml" in done.stderr


def test_a_field_of_the_grid_file_cannot_be_set_as_well(folder: Path) -> None:
    done = sweep(folder, "--runs", "t.csv", "--grid", "grid.yaml", "--set", "training.tokens=64")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("grid.yaml: training.tokens is set there and by --set: give it once")
