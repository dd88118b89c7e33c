"""Tokens and text from a model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configuration.errors import ConfigurationError
from simulator.specs import ModelSpec, Plan
from trainer.data.tokenizer import train_tokenizer
from trainer.generation import Sampling, generate, next_tokens, repeated_ngram_share
from trainer.generation.sampling import draw, probabilities
from trainer.model import build_model
from trainer.model.transformer import MoETransformer

BEGIN_ID, END_ID = 0, 1
BYTES = train_tokenizer("bytes", [], 258)
LOGITS = torch.tensor([0.5, 0.05, 0.3, 0.15]).log()
GREEDY = Sampling(temperature=0)


def mouse(*, top_k: int = 2, kv_heads: int = 4, qk_norm: str = "none", maximum_positions: int = 64, experts: str = "grouped") -> MoETransformer:
    """Two layers with random weights, larger than initial ones so that every layer has a say."""
    block = {
        "count": 2,
        "mixer": {"kind": "grouped_query", "heads": 4, "kv_heads": kv_heads, "head_width": 8, "qk_norm": qk_norm},
        "feed_forward": {"kind": "moe", "experts": 4, "top_k": top_k, "expert_width": 16},
    }
    defaults = {"sequence": 8, "micro_batch": 2}
    spec = ModelSpec.model_validate(
        {"name": "mouse", "width": 32, "vocabulary": 300, "maximum_positions": maximum_positions, "blocks": [block], "training_defaults": defaults}
    )
    model = build_model(spec, Plan.model_validate({**defaults, "implementation": {"experts": experts}}), seed=top_k)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return model


def written(model: MoETransformer, prompt: str, sampling: Sampling, *, tokens: int = 12, use_cache: bool = True) -> list[int]:
    return list(next_tokens(model, BYTES.encode(prompt), tokens=tokens, sampling=sampling, vocabulary=258, use_cache=use_cache, stop=()))


@pytest.mark.parametrize("experts", ["grouped", "loop"])
@pytest.mark.parametrize(("top_k", "kv_heads"), [(1, 2), (2, 1), (2, 2), (2, 4), (3, 4), (4, 2)])
def test_a_cache_changes_no_token(top_k: int, kv_heads: int, experts: str) -> None:
    model = mouse(top_k=top_k, kv_heads=kv_heads, experts=experts)
    for prompt in ("a", "In the beginning", "x" * 30):
        for sampling in (GREEDY, Sampling(temperature=0.7, seed=1), Sampling(temperature=1.5, top_k=40, top_p=0.9, seed=2)):
            cached = written(model, prompt, sampling)
            assert len(cached) == 12
            assert cached == written(model, prompt, sampling, use_cache=False)


@pytest.mark.parametrize("qk_norm", ["head", "width"])
def test_a_cache_changes_no_token_under_normalised_queries_and_keys(qk_norm: str) -> None:
    model = mouse(kv_heads=2, qk_norm=qk_norm)
    assert written(model, "And God said", GREEDY) == written(model, "And God said", GREEDY, use_cache=False)


def test_every_token_depends_on_the_whole_prompt() -> None:
    """Otherwise equal tokens with and without a cache would say nothing."""
    model = mouse()
    assert written(model, "a long tail", GREEDY) != written(model, "b long tail", GREEDY)


@pytest.mark.parametrize("prompt", ["abcdef", "a prompt of more positions than the model has"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_beyond_the_maximum_positions_the_last_ones_are_seen_counted_from_0(prompt: str, use_cache: bool) -> None:
    model = mouse(maximum_positions=12)
    tokens = written(model, prompt, GREEDY, tokens=15, use_cache=use_cache)
    ids = BYTES.encode(prompt)
    for token in tokens:
        with torch.no_grad():
            logits = model.logits(torch.tensor([ids[-12:]]))[0, -1, :258]
        assert token == int(logits.argmax())
        ids.append(token)


def test_temperature_0_takes_the_likeliest() -> None:
    assert draw(LOGITS, GREEDY, torch.Generator()) == 0


def test_temperature_1_leaves_the_softmax_and_2_takes_square_roots() -> None:
    assert probabilities(LOGITS, Sampling(temperature=1.0)).tolist() == pytest.approx([0.5, 0.05, 0.3, 0.15])
    roots = [math.sqrt(share) for share in (0.5, 0.05, 0.3, 0.15)]
    assert probabilities(LOGITS, Sampling(temperature=2.0)).tolist() == pytest.approx([root / sum(roots) for root in roots])


def test_top_k_keeps_the_k_likeliest() -> None:
    assert probabilities(LOGITS, Sampling(1.0, top_k=2)).tolist() == pytest.approx([0.625, 0, 0.375, 0])
    assert probabilities(LOGITS, Sampling(1.0, top_k=9)).tolist() == pytest.approx([0.5, 0.05, 0.3, 0.15])


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    assert probabilities(LOGITS, Sampling(1.0, top_p=0.4)).tolist() == [1, 0, 0, 0]
    assert probabilities(LOGITS, Sampling(1.0, top_p=0.79)).tolist() == pytest.approx([0.625, 0, 0.375, 0])
    assert probabilities(LOGITS, Sampling(1.0, top_p=0.81)).tolist() == pytest.approx([50 / 95, 0, 30 / 95, 15 / 95])


def test_top_p_is_measured_over_what_top_k_left() -> None:
    # Of 0.625 and 0.375 the first alone reaches 0.6; of all four it would not.
    assert probabilities(LOGITS, Sampling(1.0, top_k=2, top_p=0.6)).tolist() == [1, 0, 0, 0]


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20),
    temperature=st.floats(1e-300, 100),
    top_k=st.none() | st.integers(1, 25),
    top_p=st.floats(0, 1, exclude_min=True),
)
@settings(deadline=None)
def test_probabilities_add_up_to_1_and_the_likeliest_always_stays(logits: list[float], temperature: float, top_k: int | None, top_p: float) -> None:
    shares = probabilities(torch.tensor(logits), Sampling(temperature, top_k, top_p))
    assert float(shares.sum()) == pytest.approx(1)
    assert shares[torch.tensor(logits).argmax()] > 0
    assert int((shares > 0).sum()) <= (top_k or len(logits))


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([draw(LOGITS, Sampling(1.0), generator) for _ in range(4000)]).bincount(minlength=4) / 4000
    # Three standard deviations of a share of one half in 4,000 draws: 0.024.
    assert torch.allclose(drawn, LOGITS.exp(), atol=0.024)


def test_the_seed_decides() -> None:
    model = mouse()
    first = written(model, "And", Sampling(seed=5))
    assert first == written(model, "And", Sampling(seed=5))
    assert first != written(model, "And", Sampling(seed=6))


@pytest.mark.parametrize("boundary", [BEGIN_ID, END_ID])
def test_a_boundary_token_ends_the_text_and_is_not_part_of_it(boundary: int) -> None:
    model = mouse()
    tokens = written(model, "And", GREEDY)
    last = tokens[6]
    with torch.no_grad():
        # The boundary takes the place of the token that was written there, so that it is likeliest when that one was.
        model.embedding[[boundary, last]] = model.embedding[[last, boundary]]
        model.head.weight[[boundary, last]] = model.head.weight[[last, boundary]]
    completion = generate(model, BYTES, "And", tokens=12, sampling=GREEDY)
    assert completion.tokens == tuple(tokens[: tokens.index(last)])
    assert completion.ended


def test_ids_that_the_tokenizer_lacks_are_never_drawn() -> None:
    model = mouse()
    with torch.no_grad():
        model.head.weight[258:] = 10 * model.head.weight[:42]
    assert max(written(model, "And", Sampling(temperature=5.0), tokens=100)) < 258


@pytest.mark.parametrize("seed", range(5))
def test_streamed_pieces_are_whole_characters_and_add_up_to_the_text(seed: int) -> None:
    pieces: list[str] = []
    completion = generate(mouse(), BYTES, "é€", tokens=60, sampling=Sampling(temperature=3.0, seed=seed), on_text=pieces.append)
    assert "".join(pieces) == completion.text == BYTES.decode(completion.tokens)
    assert not completion.ended or len(completion.tokens) < 60


def test_a_character_of_several_tokens_is_streamed_once_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = BYTES.encode("a€b")
    assert len(ids) == 5
    monkeypatch.setattr("trainer.generation.text.next_tokens", lambda *_, **__: iter(ids))
    pieces: list[str] = []
    generate(mouse(), BYTES, "x", tokens=5, on_text=pieces.append)
    assert pieces == ["a", "€", "b"]


def test_the_prompt_gets_the_begin_token_that_documents_had(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    monkeypatch.setattr("trainer.generation.text.next_tokens", lambda model, ids, **_: seen.append(ids) or iter(()))
    for begin_token in (False, True):
        generate(mouse(), BYTES, "x", tokens=5, begin_token=begin_token)
    assert seen == [BYTES.encode("x"), [BEGIN_ID, *BYTES.encode("x")]]


def test_generating_leaves_no_trace() -> None:
    model = mouse()
    state = torch.get_rng_state()
    generate(model, BYTES, "And", tokens=5)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.is_inference_mode_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("prompt", ["", "\udcff"])
def test_a_prompt_that_is_empty_or_no_text_is_refused(prompt: str) -> None:
    with pytest.raises(ConfigurationError, match="--prompt"):
        generate(mouse(), BYTES, prompt, tokens=5)


@pytest.mark.parametrize(
    ("settings_", "option"),
    [
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": math.nan}, "--temperature"),
        ({"temperature": math.inf}, "--temperature"),
        ({"top_k": 0}, "--top-k"),
        ({"top_p": 0.0}, "--top-p"),
        ({"top_p": 1.01}, "--top-p"),
        ({"top_p": math.nan}, "--top-p"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_illegal_sampling_is_refused_by_name(settings_: dict[str, float], option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option}"):
        Sampling(**settings_)


def test_the_share_of_repeated_4_grams() -> None:
    # 1 2 3 4 5 1 2 3 4: six 4-grams, of which the last occurred before.
    assert repeated_ngram_share([1, 2, 3, 4, 5, 1, 2, 3, 4]) == pytest.approx(1 / 6)
    # 7 x 10: seven 4-grams, all but the first repeat it.
    assert repeated_ngram_share([7] * 10) == pytest.approx(6 / 7)
    assert repeated_ngram_share([1, 2, 3]) == 0
    assert repeated_ngram_share([1, 2, 1, 2], n=2) == pytest.approx(1 / 3)
