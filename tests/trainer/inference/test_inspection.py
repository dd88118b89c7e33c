"""Expert load, loss by position, attention maps."""

import math

import numpy as np
import pytest
import torch

from simulator.specs import ModelSpec
from trainer.data import Batches
from trainer.data.tokenizer import train_tokenizer
from trainer.inspection.attention import MAP_TOKENS, AttentionMaps, attention_maps, axis_name
from trainer.inspection.expert_load import LayerLoad, expert_load
from trainer.inspection.held_out import HeldOut, read_held_out
from trainer.inspection.loss_by_position import loss_by_position
from trainer.loop.evaluate import evaluate
from trainer.model import build_model

BYTES = train_tokenizer("bytes", [], 258)


def test_load_by_hand() -> None:
    load = LayerLoad(layer=0, top_k=2, counts=(6, 0, 1, 1))
    assert load.shares == (0.75, 0, 0.125, 0.125)
    assert load.max_over_mean == 3
    assert load.entropy_nats == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(8))
    assert load.dead == (1,)
    assert LayerLoad(0, 1, (5, 5, 5)).entropy_nats == pytest.approx(math.log(3))
    assert LayerLoad(0, 1, (5, 5, 5)).max_over_mean == pytest.approx(1)


def test_layers_are_numbered_among_all_blocks(experiment) -> None:
    """The first block of the mouse is dense."""
    loads = expert_load(experiment.model, HeldOut(np.zeros((1, 1)), np.zeros((1, 0)), ((1, 2, 3, 4), (4, 3, 2, 1))))
    assert [(load.layer, load.top_k, load.counts) for load in loads] == [(1, 2, (1, 2, 3, 4)), (2, 2, (4, 3, 2, 1))]


def test_a_router_without_preference_sends_every_token_to_the_same_experts(experiment) -> None:
    """All logits equal: topk takes some k experts, the same for every token."""
    model = build_model(experiment.model, experiment.plan, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "router" in name:
                parameter.zero_()
    held_out = read_held_out(model, Batches(np.arange(2, 131, dtype=np.uint16), 32), 2, None)
    for load in expert_load(experiment.model, held_out):
        assert sorted(load.counts) == [0, 0, 128, 128]
        assert len(load.dead) == 2


def test_held_out_losses_are_those_of_the_evaluation(experiment) -> None:
    model = build_model(experiment.model, experiment.plan, seed=1)
    batches = Batches(np.random.default_rng(0).integers(2, 258, 400).astype(np.uint16), 32)
    held_out = read_held_out(model, batches, 5, None)
    validation = evaluate(model, batches.in_sequence(4))
    assert held_out.losses_NS.shape == (12, 32)
    assert held_out.losses_NS.mean() == pytest.approx(validation.loss_nats_per_token, rel=1e-6)
    assert held_out.counts_LE == validation.counts_LE
    whole = loss_by_position(held_out).ranges[-1]
    assert whole.loss_nats_per_token == pytest.approx(validation.loss_nats_per_token, rel=1e-6)
    assert whole.standard_error_nats_per_token == pytest.approx(validation.standard_error_nats_per_token, rel=1e-6)


def test_a_limit_on_tokens_takes_the_first_windows(experiment) -> None:
    model = build_model(experiment.model, experiment.plan, seed=1)
    batches = Batches(np.random.default_rng(0).integers(2, 258, 400).astype(np.uint16), 32)
    some = read_held_out(model, batches, 4, 65).losses_NS
    assert some.shape == (3, 32)
    assert some == pytest.approx(read_held_out(model, batches, 4, None).losses_NS[:3], rel=1e-5)


def losses(slope: float, *, windows: int = 200, length: int = 64, noise: float = 1.0, seed: int = 0) -> HeldOut:
    """Losses that fall by ``slope`` nats a doubling; tokens differ in difficulty, and a context changes each token's loss at random."""
    random = np.random.default_rng(seed)
    quarter = length // 4
    mean_S = 5 + slope * np.log2(np.arange(1, length + 1))
    difficulty_NS = noise * random.normal(size=(windows, length)) + 0.3 * noise * random.normal(size=(windows, 1))
    earlier_NQ = difficulty_NS[:, length - quarter :] + mean_S[length - 2 * quarter : length - quarter]
    change_NS, change_NQ = 0.2 * noise * random.normal(size=(windows, length)), 0.2 * noise * random.normal(size=(windows, quarter))
    return HeldOut(mean_S + difficulty_NS + change_NS, earlier_NQ + change_NQ, ())


def test_ranges_double_and_the_last_is_the_whole() -> None:
    by_position = loss_by_position(losses(-0.1, length=48))
    assert [(part.first, part.last) for part in by_position.ranges] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 48), (1, 48)]


def test_means_and_errors_by_hand() -> None:
    by_position = loss_by_position(HeldOut(np.array([[4.0, 3.0, 1.0], [2.0, 1.0, 1.0]]), np.zeros((2, 0)), ()))
    first, second, third, whole = by_position.ranges
    # Two values a and b have the standard error |a - b| / 2.
    assert (first.loss_nats_per_token, first.standard_error_nats_per_token) == (3, 1)
    assert (second.loss_nats_per_token, second.standard_error_nats_per_token) == (2, 1)
    assert (third.loss_nats_per_token, third.standard_error_nats_per_token) == (1, 0)
    assert whole.loss_nats_per_token == 2
    assert whole.standard_error_nats_per_token == pytest.approx((8 / 3 - 4 / 3) / 2)


def test_a_slope_without_noise_is_found_exactly() -> None:
    trend = loss_by_position(losses(-0.25, noise=0.0)).trend
    assert trend is not None
    assert (trend.first, trend.last) == (49, 64)
    assert trend.slope_nats_per_doubling == pytest.approx(-0.25)
    assert trend.falls


def test_a_slope_by_hand() -> None:
    """Eight positions: the last two, 7 and 8, were 5 and 6; log2(7/5) and log2(8/6) average 0.4502 doublings."""
    at_7_and_8 = np.array([[3.0, 2.0], [3.5, 2.1]])
    before = at_7_and_8 + np.array([[0.1, 0.3], [0.5, 0.1]])
    trend = loss_by_position(HeldOut(np.concatenate([np.full((2, 6), 9.0), at_7_and_8], 1), before, ())).trend
    assert trend is not None
    doublings = (math.log2(7 / 5) + math.log2(8 / 6)) / 2
    # Windows change by -0.2 and -0.3: mean -0.25, standard error 0.05, so t = -5 with one degree of freedom: p = 1/2 - atan(5)/pi.
    assert trend.slope_nats_per_doubling == pytest.approx(-0.25 / doublings)
    assert trend.standard_error_nats_per_doubling == pytest.approx(0.05 / doublings)
    assert trend.p_value == pytest.approx(0.5 - math.atan(5) / math.pi)
    assert not trend.falls


def test_equal_windows_have_a_certain_slope() -> None:
    for slope, falls in ((-0.25, True), (0.25, False)):
        trend = loss_by_position(losses(slope, noise=0.0, windows=4)).trend
        assert trend is not None
        assert trend.falls is falls


def test_the_last_quarter_is_predicted_again_without_the_first(experiment) -> None:
    model = build_model(experiment.model, experiment.plan, seed=1)
    tokens = np.random.default_rng(0).integers(2, 258, 65).astype(np.uint16)
    held_out = read_held_out(model, Batches(tokens, 32), 2, None)
    stream = torch.from_numpy(tokens.astype(np.int64))
    for window, start in enumerate((0, 32)):
        seen, labels = stream[None, start + 8 : start + 32], stream[None, start + 9 : start + 33]
        with torch.no_grad():
            expected = model.token_losses(seen, labels)[0][0, -8:]
        assert held_out.shortened_NQ[window] == pytest.approx(expected.numpy(), rel=1e-5)


def test_without_a_trend_a_fall_is_claimed_once_in_twenty() -> None:
    """The test holds its level, 5 %: of 400 data sets without trend 8 to 32 are expected (three standard deviations)."""
    claims = sum(trend.falls for seed in range(400) if (trend := loss_by_position(losses(0.0, windows=30, seed=seed)).trend) is not None)
    assert 8 <= claims <= 32


def test_the_bound_holds_in_nineteen_of_twenty() -> None:
    trends = [loss_by_position(losses(-0.3, windows=30, seed=seed)).trend for seed in range(400)]
    held = sum(trend.lower_bound_nats_per_doubling <= -0.3 for trend in trends if trend is not None)
    assert 368 <= held <= 392


def test_the_verdict_says_what_was_found() -> None:
    falling = loss_by_position(losses(-0.5, windows=400))
    assert falling.verdict.startswith("The loss still falls at the last position")
    assert "The sequence length of 64 is a limit" in falling.verdict
    flat = loss_by_position(losses(0.0))
    assert flat.verdict.startswith("The loss does not fall at the last position beyond its standard error")
    assert "is not shown" in flat.verdict
    assert "too few to tell" in loss_by_position(losses(0.0, windows=1)).verdict
    assert "too few to tell" in loss_by_position(losses(0.0, length=7)).verdict
    assert loss_by_position(losses(0.0, windows=1)).ranges[0].standard_error_nats_per_token is None


def test_maps_are_rows_of_probabilities_that_look_back(experiment) -> None:
    model = build_model(experiment.model, experiment.plan, seed=1)
    maps = attention_maps(model, BYTES, BYTES.encode("a cat\n"))
    assert maps.tokens == ("a", "·", "c", "a", "t", "⏎")
    assert [weights.shape for weights in maps.weights_LHSS] == [(4, 6, 6)] * 3
    for weights in maps.weights_LHSS:
        assert weights.sum(-1) == pytest.approx(np.ones((4, 6)), rel=1e-5)
        assert not np.triu(weights, 1).any()


def test_long_texts_are_cut_and_it_is_said(experiment) -> None:
    model = build_model(experiment.model, experiment.plan, seed=1)
    maps = attention_maps(model, BYTES, BYTES.encode("x" * 100))
    assert (len(maps.tokens), maps.of_tokens) == (MAP_TOKENS, 100)
    assert maps.as_dict()["of_tokens"] == 100


def test_habits_of_heads_by_hand() -> None:
    at_itself, at_previous, at_first = np.eye(4), np.eye(4, k=-1), np.zeros((4, 4))
    at_previous[0, 0] = 1
    at_first[:, 0] = 1
    maps = AttentionMaps(("a", "b", "c", "d"), 4, (np.stack([at_itself, at_previous, at_first]),))
    heads = maps.as_dict()["heads"]
    assert [head["to_itself"] for head in heads] == [1, 0, 0]
    # The second token's previous one is the first.
    assert [head["to_previous"] for head in heads] == [0, 1, pytest.approx(1 / 3)]
    assert [head["to_first"] for head in heads] == [0, pytest.approx(1 / 3), 1]
    assert [head["distance_tokens"] for head in heads] == [0, 1, 2]


def test_a_text_of_one_token_has_no_habits() -> None:
    assert AttentionMaps(("a",), 1, (np.ones((1, 1, 1)),)).as_dict()["heads"][0]["distance_tokens"] is None


def test_names_on_the_axes_are_visible_and_short() -> None:
    assert axis_name(" the") == "·the"
    assert axis_name("é") == "é"
    assert axis_name("字") == "\\u5b57"
    assert axis_name("\x00") == "\\u0000"
    assert axis_name("extraordinarily") == "extraordina…"


def test_a_dense_model_has_no_expert_load(experiment) -> None:
    spec = ModelSpec.model_validate(experiment.model.model_dump() | {"blocks": [experiment.model.blocks[0].model_dump()]})
    model = build_model(spec, experiment.plan, seed=1)
    held_out = read_held_out(model, Batches(np.arange(2, 131, dtype=np.uint16), 32), 2, None)
    assert expert_load(spec, held_out) == ()
