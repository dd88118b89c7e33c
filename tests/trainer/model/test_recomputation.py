"""What is computed again is the same: losses, gradients, counts; and less is kept."""

import itertools

import pytest
import torch

from configuration.errors import ConfigurationError
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from trainer.measure.subject import random_micro_batches
from trainer.model import build_model
from trainer.optimizer import build_optimizer
from trainer.step import training_step

MODEL = {
    "width": 32, "vocabulary": 300, "blocks.0.feed_forward.router": "sigmoid", "blocks.0.feed_forward.selection_bias": True,
    "blocks.0.feed_forward.shared_width": 16, "blocks.0.feed_forward.capacity_factor": 1.0,
}  # fmt: skip


def resolved(recomputation: object) -> tuple[ModelSpec, Plan]:
    spec = load_model("tiny-moe", MODEL)
    return spec, load_plan(spec, None, {"sequence": 16, "micro_batch": 4, "global_batch": 8, "recomputation": recomputation})[0]


def steps_of(recomputation: object, steps: int = 3) -> tuple[list[float], list[list[int]], dict[str, torch.Tensor]]:
    spec, plan = resolved(recomputation)
    model = build_model(spec, plan, seed=0)
    optimizer = build_optimizer(model, plan, learning_rate=1e-3, weight_decay=0.0)
    batches = random_micro_batches(spec, plan, seed=0)
    done = [training_step(model, optimizer, itertools.islice(batches, plan.accumulation), plan) for _ in range(steps)]
    return [float(step.language_model) for step in done], [counts.tolist() for step in done for counts in step.counts_LE], model.state_dict()


@pytest.mark.parametrize("recomputation", ["full", ["attention"], ["feed_forward"], ["experts"], ["attention", "experts"]], ids=str)
def test_losses_counts_and_weights_are_bit_for_bit_those_without(recomputation: object) -> None:
    plain, again = steps_of("none"), steps_of(recomputation)
    assert again[:2] == plain[:2]
    assert all(torch.equal(again[2][name], tensor) for name, tensor in plain[2].items())
    # Two micro-batches of 64 tokens, each to its k experts: none is counted twice.
    assert {sum(counts) for counts in again[1]} == {2 * 64 * load_model("tiny-moe", MODEL).blocks[0].feed_forward.top_k}


def test_experts_of_a_dense_model_are_refused() -> None:
    spec = load_model("tiny-moe", {"blocks.0.feed_forward": {"kind": "dense", "hidden_width": 32}})
    plan = load_plan(spec, None, {"sequence": 16})[0].model_copy(update={"recomputation": ("experts",)})
    with pytest.raises(ConfigurationError, match="no experts"):
        plan.check_against(spec)


def test_a_part_within_another_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="feed_forward contains experts"):
        resolved(["feed_forward", "experts"])
