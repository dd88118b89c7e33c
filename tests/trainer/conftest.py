import random
import sys
from typing import NamedTuple

import pytest
import torch

from configuration.command import run
from trainer.cli import app


@pytest.fixture(autouse=True)
def _own_cache_and_one_thread(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    # Threads of commands that these tests start wait without spinning: the cores are shared.
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    torch.set_num_threads(1)


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def trainer(tmp_path, monkeypatch, capsys):
    """Runs ``python -m trainer ARGUMENTS`` with ``tmp_path`` as working directory, in this process: importing torch takes seconds."""
    monkeypatch.chdir(tmp_path)

    def run_trainer(*arguments):
        monkeypatch.setattr(sys, "argv", ["trainer", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            run(app, "trainer")
        return Answer(left.value.code, *capsys.readouterr())

    return run_trainer


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """Settings of a run that takes a second: 60 steps of 256 tokens, plain bytes of a made-up text, one layer of 16 experts."""
    corpus = tmp_path_factory.mktemp("corpus") / "words.txt"
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 7))) for _ in range(50)]
    corpus.write_text("".join(" ".join(draw.choices(words, k=12)) + "\n" for _ in range(1_000)))
    return (
        f"data.sources=[{{kind: text-files, paths: {corpus}, document: line}}]",
        "data.tokenizer=bytes",
        "model.width=32",
        "model.vocabulary=260",
        "model.blocks.0.count=1",
        "model.blocks.0.mixer.head_width=8",
        "model.blocks.0.feed_forward.experts=16",
        "model.blocks.0.feed_forward.expert_width=16",
        "plan.sequence=32",
        "plan.micro_batch=8",
        "training.tokens=15360",
        "training.learning_rate=0.01",
        "training.device=cpu",
        "training.evaluation.interval_steps=20",
        "training.evaluation.tokens=512",
        "training.checkpoints.interval_steps=7",
    )


@pytest.fixture
def experiment_of(small_run):
    """The small run's experiment, with further settings."""
    from configuration.overrides import parse_single
    from trainer.loop.experiment import KINDS, resolve

    def experiment(*settings):
        chosen = {setting.partition("=")[0]: setting for setting in (*small_run, *settings)}
        return resolve("tiny-moe", "simple-corpus", "basic", None, parse_single(chosen.values(), KINDS), cuda=False)[0]

    return experiment
