"""Checkpoints of tiny models with random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.checkpoints import save_checkpoint
from trainer.data import prepare
from trainer.loop.experiment import Experiment, resolve
from trainer.model.build import build_model
from trainer.optimizer import build_optimizer

MODEL = """
name: mouse
width: 32
vocabulary: 300
tied_embeddings: true
maximum_positions: 64
blocks:
  - count: 1
    mixer: {kind: grouped_query, heads: 4, kv_heads: 2, head_width: 8}
    feed_forward: {kind: dense, hidden_width: 32}
  - count: 2
    mixer: {kind: grouped_query, heads: 4, kv_heads: 2, head_width: 8}
    feed_forward: {kind: moe, experts: 4, top_k: 2, expert_width: 16}
training_defaults: {sequence: 32, micro_batch: 4}
"""

TEXT = "".join(f"{number} mice ran over {number * number} roofs, and the cat — half asleep — counted them.\n\n" for number in range(400))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Plain bytes of a small text for a model of three layers."""
    for name, content in (("mouse.yaml", MODEL), ("mice.txt", TEXT)):
        (tmp_path / name).write_text(content)
    (tmp_path / "mice.yaml").write_text(f"sources: [{{kind: text-files, paths: [{tmp_path / 'mice.txt'}]}}]\ntokenizer: bytes\n")
    return resolve(str(tmp_path / "mouse.yaml"), str(tmp_path / "mice.yaml"), "basic", None, {}, cuda=False)[0]


@pytest.fixture
def saved(experiment: Experiment, tmp_path: Path) -> Callable[[str], Path]:
    """Saves a checkpoint of random weights in ``runs/NAME`` under ``tmp_path`` and returns its folder."""

    def save(run: str, seed: int = 1) -> Path:
        model = build_model(experiment.model, experiment.plan, seed=seed)
        optimizer = build_optimizer(model, experiment.plan, learning_rate=1e-3, weight_decay=0.1)
        data = prepare(experiment.data, experiment.model.vocabulary, lambda line: None)
        return save_checkpoint(tmp_path / "runs" / run, 3, model, optimizer, experiment=experiment, data_key=data.facts.key, tokenizer=data.tokenizer)

    return save
