"""Saved under one plan, resumed under another: the same next losses, and every expert, bias and moment there."""

import shutil

import pytest
import torch

from configuration.overrides import parse_single
from trainer.checkpoints import checkpoints_in, find_checkpoint
from trainer.checkpoints.load import read_tensors
from trainer.loop.experiment import KINDS, resolve

COMMON = {"sequence": 16, "micro_batch": 2, "global_batch": 8, "implementation": {"experts": "loop"}}
ONE = {"ranks": 1}
CHAINS = {
    "expert": [ONE, {"ranks": 2, "ep": 2}, ONE],
    "data to expert": [{"ranks": 2, "ep": 1}, {"ranks": 2, "ep": 2}, {"ranks": 2, "ep": 1}],
    "shards": [{"ranks": 2, "ep": 2}, {"ranks": 2, "ep": 1, "zero_stage": 3}, {"ranks": 2, "ep": 2, "zero_stage": 2}, ONE],
    "slices": [ONE, {"ranks": 2, "ep": 1, "tp": 2}, {"ranks": 2, "ep": 1, "etp": 2}, {"ranks": 2, "ep": 1, "tp": 2, "zero_stage": 3}, ONE],
    "stages": [{"ranks": 2, "ep": 1, "pp": 2}, ONE, {"ranks": 2, "ep": 1, "pp": 2, "schedule": "interleaved", "virtual_stages": 2}, {"ranks": 2, "ep": 2}],
    "four": [
        {"ranks": 4, "ep": 2, "zero_stage": 3, "replicas": 2},
        {"ranks": 4, "ep": 2, "pp": 2},
        {"ranks": 2, "ep": 2},
        {"ranks": 4, "ep": 2, "etp": 2},
        {"ranks": 4, "ep": 2, "tp": 2, "zero_stage": 3},
        ONE,
    ],
}


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "text.txt").write_text("one line after another, and none of them alike\n" * 100)
    settings = [
        f"data.sources=[{{kind: text-files, paths: {tmp_path / 'text.txt'}, document: line}}]", "data.tokenizer=bytes", "training.device=cpu",
        "training.tokens=1280", "model.vocabulary=260", "model.width=32", "model.blocks.0.count=4", "model.blocks.0.mixer.heads=4",
        "model.blocks.0.mixer.kv_heads=2", "model.blocks.0.mixer.head_width=8", "model.blocks.0.feed_forward.experts=4",
        "model.blocks.0.feed_forward.expert_width=16", "model.blocks.0.feed_forward.selection_bias=true", "plan.sequence=16", "plan.micro_batch=2",
        "plan.global_batch=8",
    ]  # fmt: skip
    return resolve("tiny-moe", "simple-corpus", "basic", None, parse_single(settings, KINDS), cuda=False)[0]


QUICK = {("data to expert", True), ("shards", True), ("stages", True)}


@pytest.mark.parametrize(
    ("chain", "tied"), [pytest.param(chain, tied, marks=() if (chain, tied) in QUICK else pytest.mark.slow) for chain in CHAINS for tied in (True, False)]
)
def test_a_chain_of_plans_is_one_training(ranks, experiment, tmp_path, chain, tied):
    experts = {"experiment": experiment.as_dict()}
    experts["experiment"]["model"]["tied_embeddings"] = tied
    plans = [COMMON | plan for plan in CHAINS[chain]]
    (whole,) = ranks(1).run(run="resume", plan=COMMON | ONE, folder=str(tmp_path / "whole"), steps=len(plans), **experts)
    run = tmp_path / "run"
    for number, plan in enumerate(plans, start=1):
        first, *_ = ranks(plan["ranks"]).run(run="resume", plan=plan, folder=str(run), steps=1, **experts)
        assert first["step"] == number
        kept = tmp_path / f"step-{number:08d}"
        shutil.copytree(checkpoints_in(run)[-1], kept)
        if number < len(plans):
            # Read under the next plan and written again: the same numbers, bit for bit.
            following = plans[number]
            ranks(following["ranks"]).run(run="resume", plan=following, folder=str(run), steps=0, **experts)
            same(state(kept), state(checkpoints_in(run)[-1]))
    assert first["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    expected, found = state(checkpoints_in(tmp_path / "whole")[-1]), state(checkpoints_in(run)[-1])
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        if name.endswith("exp_avg"):
            assert float((found[name] - tensor).norm() / tensor.norm()) < 1e-4, name
    assert any(name.endswith("selection_bias") and tensor.any() for name, tensor in found.items())


def state(folder):
    """Every tensor of a checkpoint, whole; random states are each rank's own."""
    return {name: tensor for name, tensor in read_tensors(find_checkpoint(str(folder))).items() if not name.startswith("random.")}


def same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
