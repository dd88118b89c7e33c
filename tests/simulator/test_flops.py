import pytest

from simulator.specs import load_model
from simulator.specs.flops import forward_flops_per_token, model_flops_per_token


def test_dense_layer_by_hand() -> None:
    mixer = {"heads": 4, "kv_heads": 2, "head_width": 8}
    block = {"count": 2, "mixer": mixer, "feed_forward": {"kind": "dense", "hidden_width": 100}}
    model = load_model("tiny-moe", {"width": 32, "vocabulary": 50, "blocks": [block]})
    projections = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32)
    scores = 2 * 2 * 10 * 32  # half of 20 positions, 4 heads of 8
    feed_forward = 2 * 3 * 32 * 100
    assert forward_flops_per_token(model, 20) == 2 * (projections + scores + feed_forward) + 2 * 32 * 50


def test_a_mixture_counts_the_router_and_the_chosen_experts() -> None:
    dense = load_model("tiny-moe", {"blocks.0.feed_forward.experts": 1, "blocks.0.feed_forward.top_k": 1, "blocks.0.count": 1})
    chosen = load_model("tiny-moe", {"blocks.0.feed_forward.experts": 16, "blocks.0.feed_forward.top_k": 3, "blocks.0.count": 1})
    more = forward_flops_per_token(chosen, 64) - forward_flops_per_token(dense, 64)
    assert more == 2 * (2 * 3 * 128 * 128) + 2 * 15 * 128


def test_training_is_three_times_forward() -> None:
    model = load_model("tiny-moe")
    assert model_flops_per_token(model, 128) == 3 * forward_flops_per_token(model, 128)


def test_tying_the_head_changes_no_flops() -> None:
    tied, untied = (load_model("tiny-moe", {"tied_embeddings": flag}) for flag in (True, False))
    assert model_flops_per_token(tied, 128) == model_flops_per_token(untied, 128)


def test_llama_3_8b_is_six_flops_a_matrix_parameter_and_the_scores() -> None:
    model = load_model("llama-3-8b")
    matrices = model.parameters - model.vocabulary * model.width - (2 * model.layers + 1) * model.width
    scores = 3 * 32 * 2 * 2 * (8192 / 2) * 4096
    assert model_flops_per_token(model, 8192) == pytest.approx(6 * matrices + scores, rel=1e-12)
