"""``python -m trainer sweep``: a grid of real runs, one row each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simulator.records.run_table import RunRow, read_rows
from trainer.sweep.workers import visible_gpus

GRID = (
    "--set", "model.width=16", "--set", "model.vocabulary=260", "--set", "model.blocks.0.mixer.heads=2", "--set", "model.blocks.0.mixer.kv_heads=2",
    "--set", "model.blocks.0.mixer.head_width=8", "--set", "model.blocks.0.feed_forward.expert_width=16", "--set", "model.blocks.0.feed_forward.experts=2",
    "--set", "data.tokenizer=bytes", "--set", "plan.sequence=32", "--set", "plan.micro_batch=4", "--set", "training.tokens=512",
)  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Paragraph {number} says something of its own, in a few plain words." for number in range(200)))
    return text


def sweep(corpus: Path, *words: str) -> subprocess.CompletedProcess[str]:
    source = ("--data", "text-files", "--set", f"data.sources=[{{kind: text-files, paths: ['{corpus}'], document: paragraph}}]")
    environment = os.environ | {"XDG_CACHE_HOME": str(corpus.parent / "cache")}
    command = [sys.executable, "-m", "trainer", "sweep", "--threads", "1", *source, *GRID, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=corpus.parent, env=environment)


def test_each_point_becomes_one_row_and_is_not_trained_twice(corpus: Path, tmp_path: Path) -> None:
    words = ("--runs", "t.csv", "--folder", "kept", "--set", "model.blocks.0.count=1,2", "--json")
    first = sweep(corpus, *words)
    assert first.returncode == 0, first.stderr
    rows = read_rows(tmp_path / "t.csv")
    assert [row.layers for row in rows] == [1, 2]
    _check(rows[0])
    assert len(list((tmp_path / "kept").iterdir())) == 2
    again = sweep(corpus, *words)
    assert json.loads(again.stdout)["already_there"] == 2
    assert json.loads(again.stdout)["trained"] == []
    assert read_rows(tmp_path / "t.csv") == rows


def _check(row: RunRow) -> None:
    # One layer: attention 4·16², norms 2·16, router 16·2, two experts of 3·16²; the tied table of 260·16; the last norm.
    assert row.total_parameters == 4 * 16**2 + 2 * 16 + 16 * 2 + 2 * 3 * 16**2 + 260 * 16 + 16
    assert row.embedding_parameters == 260 * 16
    assert row.tokens == 512
    # Per token: 3·2 for each weight of a product (projections, router, both experts, head), and 7 products of 32 positions for the causal scores.
    weights = 4 * 16**2 + 16 * 2 + 2 * 3 * 16**2 + 260 * 16
    assert row.training_flops == 512 * (6 * weights + 7 * 16 * 32)
    assert row.validation_loss_nats_per_token > 0
    assert row.validation_loss_standard_error_nats_per_token is not None
    assert row.sample_text is not None
    assert row.repeated_4gram_share is not None


def test_a_dry_run_prints_the_grid_and_trains_nothing(corpus: Path, tmp_path: Path) -> None:
    done = sweep(corpus, "--runs", "t.csv", "--set", "training.learning_rate=1e-3,2e-3", "--dry-run", "--json")
    runs = json.loads(done.stdout)["runs"]
    assert len({run["run"] for run in runs}) == 2
    assert all(run["training_flops"] > 0 for run in runs)
    assert not (tmp_path / "t.csv").exists()


def test_a_point_that_cannot_be_run_is_told_before_anything_is_trained(corpus: Path, tmp_path: Path) -> None:
    done = sweep(corpus, "--runs", "t.csv", "--set", "model.blocks.0.feed_forward.top_k=1,3")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "top_k=3" in done.stderr
    assert "top_k (3) must not exceed experts (2)" in done.stderr
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(("given", "seen"), [(None, ["0", "1"]), ("2, 3", ["2", "3"]), ("3", ["3"])])
def test_processes_share_the_gpus_that_the_sweep_may_use(monkeypatch: pytest.MonkeyPatch, given: str | None, seen: list[str]) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
    assert visible_gpus() == seen


def test_presets_are_listed_and_shown() -> None:
    listed = subprocess.run([sys.executable, "-m", "trainer", "list", "--json"], capture_output=True, text=True)
    assert "simple-corpus" in json.loads(listed.stdout)["data"]
    shown = subprocess.run([sys.executable, "-m", "trainer", "show", "basic"], capture_output=True, text=True)
    assert shown.returncode == 0
    schema = subprocess.run([sys.executable, "-m", "trainer", "show", "training", "--schema"], capture_output=True, text=True)
    assert "learning_rate" in json.loads(schema.stdout)["properties"]
