"""What each precision keeps in which type."""

import itertools

import pytest
import torch

from simulator.specs import load_model, load_plan
from trainer.measure.subject import random_micro_batches
from trainer.model import build_model
from trainer.optimizer import build_optimizer
from trainer.step import training_step

KEPT = {"fp32": (torch.float32, torch.float32), "bf16-mixed": (torch.float32, torch.bfloat16), "bf16": (torch.bfloat16, torch.bfloat16)}
"""Type of weights and states, and type of what is computed."""


@pytest.mark.parametrize("precision", KEPT)
def test_weights_states_and_compute_are_of_their_types(precision: str) -> None:
    weights, compute = KEPT[precision]
    spec = load_model("tiny-moe", {"width": 32, "vocabulary": 300, "blocks.0.feed_forward.selection_bias": True})
    plan = load_plan(spec, None, {"sequence": 16, "micro_batch": 2, "precision": precision})[0]
    model = build_model(spec, plan, seed=0)
    optimizer = build_optimizer(model, plan, learning_rate=1e-3, weight_decay=0.0)
    seen = []
    model.blocks[0].feed_forward.experts.register_forward_hook(lambda module, rows, out: seen.append(out.dtype))
    training_step(model, optimizer, itertools.islice(random_micro_batches(spec, plan, seed=0), 1), plan)
    assert set(seen) == {compute}
    assert {parameter.dtype for parameter in model.parameters()} == {weights}
    assert {state.dtype for states in optimizer.state.values() for name, state in states.items() if name != "step"} == {weights}
    # Rotary tables and selection biases are never rounded.
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}
    exact = build_model(spec, plan.model_copy(update={"precision": "fp32"}), seed=0)
    assert torch.equal(model.get_buffer("cosine_32"), exact.get_buffer("cosine_32"))
