"""Every router against a plain loop over tokens in float64, by value and by gradient; the moves of the selection bias."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from simulator.specs import ModelSpec, MoeFeedForward, Plan, load_model, load_plan
from trainer.measure.subject import random_micro_batches
from trainer.model import build_model
from trainer.model.router import Router, taking_turns, update_selection_biases
from trainer.optimizer import build_optimizer
from trainer.step import training_step

TOKENS, WIDTH, EXPERTS, TOP_K = 40, 24, 8, 3
VALUE_BOUND, GRADIENT_BOUND = 2e-6, 5e-6
"""Relative errors of fp32 against float64 that are allowed; the largest seen are a third of them."""

ROUTERS = [
    {"router": router, "normalise_weights": normalise, "weight_scale": scale, "selection_bias": bias}
    for router, normalise, scale, bias in itertools.product(("softmax", "sigmoid"), (True, False), (1.0, 2.5), (True, False))
]


def scores_of(logits: list[float], kind: str) -> list[float]:
    if kind == "sigmoid":
        return [1 / (1 + math.exp(-logit)) for logit in logits]
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def chosen_of(scores: list[float], bias: list[float], token: int, *, uniform: bool) -> list[int]:
    if uniform:
        return [(token * TOP_K + place) % EXPERTS for place in range(TOP_K)]
    return sorted(range(EXPERTS), key=lambda expert: -(scores[expert] + bias[expert]))[:TOP_K]


def reference(spec: MoeFeedForward, x_TD: Tensor, weight_ED: Tensor, bias_E: Tensor, *, uniform: bool) -> tuple[Tensor, list[list[int]], Tensor, Tensor]:
    """Weights (T, K), choices, balancing loss and z-loss in float64, token by token. The choice takes no gradient."""
    rows, choices, probabilities, squares = [], [], [], []
    for token, x_D in enumerate(x_TD):
        logits_E = torch.stack([torch.dot(weight_D, x_D) for weight_D in weight_ED])
        score_E = torch.exp(logits_E) / torch.exp(logits_E).sum() if spec.router == "softmax" else 1 / (1 + torch.exp(-logits_E))
        chosen = chosen_of(scores_of(logits_E.tolist(), spec.router), bias_E.tolist(), token, uniform=uniform)
        weights = [score_E[expert] for expert in chosen]
        if spec.normalise_weights:
            weights = [weight / sum(weights) for weight in weights]
        rows.append(torch.stack([weight * spec.weight_scale for weight in weights]))
        choices.append(chosen)
        probabilities.append(score_E / score_E.sum())
        squares.append(torch.log(torch.exp(logits_E).sum()) ** 2)
    share_E = torch.tensor([sum(expert in chosen for chosen in choices) / (TOKENS * TOP_K) for expert in range(EXPERTS)], dtype=torch.float64)
    balance = EXPERTS * torch.dot(share_E, torch.stack(probabilities).mean(0))
    return torch.stack(rows), choices, balance, torch.stack(squares).mean()


def router_of(spec: MoeFeedForward, *, uniform: bool) -> tuple[Router, Tensor]:
    generator = torch.Generator().manual_seed(1)
    router = Router(spec, WIDTH, load_balancing=True, router_z=True, uniform=uniform)
    with torch.no_grad():
        router.weight.normal_(0.0, 0.4, generator=generator)
        if spec.selection_bias:
            router.selection_bias.normal_(0.0, 0.2, generator=generator)
    return router, torch.randn(TOKENS, WIDTH, generator=generator)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().double() - wanted.detach()).norm() / wanted.detach().norm())


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("fields", ROUTERS, ids=lambda fields: " ".join(str(value) for value in fields.values()))
def test_a_router_is_the_loop_over_tokens(fields: dict[str, object], uniform: bool) -> None:
    spec = MoeFeedForward(experts=EXPERTS, top_k=TOP_K, expert_width=8, **fields)
    router, x_TD = router_of(spec, uniform=uniform)
    x_TD.requires_grad_()
    weight_TK, expert_TK, record = router(x_TD)
    wide_x_TD, wide_weight_ED = x_TD.detach().double().requires_grad_(), router.weight.detach().double().requires_grad_()
    bias_E = router.selection_bias.double() if spec.selection_bias else torch.zeros(EXPERTS, dtype=torch.float64)
    wanted_TK, choices, balance, z = reference(spec, wide_x_TD, wide_weight_ED, bias_E, uniform=uniform)

    order_TK = expert_TK.argsort(-1)
    wanted_order = torch.tensor(choices).argsort(-1)
    assert expert_TK.gather(1, order_TK).tolist() == torch.tensor(choices).gather(1, wanted_order).tolist()
    assert relative_error(weight_TK.gather(1, order_TK), wanted_TK.gather(1, wanted_order)) < VALUE_BOUND
    assert relative_error(record.load_balancing, balance) < VALUE_BOUND
    assert relative_error(record.router_z, z) < VALUE_BOUND
    assert record.counts_E.tolist() == [sum(expert in chosen for chosen in choices) for expert in range(EXPERTS)]

    pull_TK = torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(2))
    ((weight_TK * pull_TK.gather(1, expert_TK)).sum() + record.load_balancing + record.router_z).backward()
    ((wanted_TK * pull_TK.double().gather(1, torch.tensor(choices))).sum() + balance + z).backward()
    assert relative_error(x_TD.grad, wide_x_TD.grad) < GRADIENT_BOUND
    assert relative_error(router.weight.grad, wide_weight_ED.grad) < GRADIENT_BOUND


@pytest.mark.parametrize(("tokens", "top_k", "experts"), [(7, 2, 4), (5, 3, 3), (1, 2, 8), (64, 8, 64)])
def test_experts_in_turn_are_even_and_never_twice_for_a_token(tokens: int, top_k: int, experts: int) -> None:
    expert_TK = taking_turns(tokens, top_k, experts, torch.device("cpu"))
    counts = expert_TK.flatten().bincount(minlength=experts)
    assert counts.max() - counts.min() <= 1
    assert all(len(set(row)) == top_k for row in expert_TK.tolist())


def test_the_balancing_loss_of_a_sigmoid_router_cannot_be_lowered_by_lower_scores() -> None:
    spec = MoeFeedForward(experts=EXPERTS, top_k=TOP_K, expert_width=8, router="sigmoid")
    router, x_TD = router_of(spec, uniform=False)
    before = router(x_TD).record.load_balancing.detach()
    logits = x_TD @ router.weight.t()
    lower = torch.logit(torch.sigmoid(logits) * 0.01)  # every score a hundredth of what it was
    with torch.no_grad():
        router.logits = lambda *_: lower
    assert float(router(x_TD).record.load_balancing.detach()) == pytest.approx(float(before), rel=1e-4)


def test_a_bias_changes_who_is_chosen_and_no_weight_and_takes_no_gradient() -> None:
    spec = MoeFeedForward(experts=EXPERTS, top_k=TOP_K, expert_width=8, normalise_weights=False, selection_bias=True)
    router, x_TD = router_of(spec, uniform=False)
    with torch.no_grad():
        router.selection_bias.zero_()[5] = 10.0
    weight_TK, expert_TK, record = router(x_TD)
    assert record.counts_E[5] == TOKENS
    scores_TE = (x_TD @ router.weight.t()).softmax(-1)
    assert torch.allclose(weight_TK, scores_TE.gather(1, expert_TK))
    assert not router.selection_bias.requires_grad
    assert "selection_bias" in router.state_dict()


def test_a_bias_moves_up_where_less_than_the_mean_came_and_down_where_more() -> None:
    router = Router(MoeFeedForward(experts=4, top_k=1, expert_width=8, selection_bias=True), WIDTH, load_balancing=False, router_z=False, uniform=False)
    # The mean is 5.
    update_selection_biases(router, [torch.tensor([0, 5, 12, 3])], rate=0.01)
    assert router.selection_bias.tolist() == pytest.approx([0.01, 0.0, -0.01, 0.01])


def biased(plan: dict[str, object]) -> tuple[ModelSpec, Plan]:
    fields = {"width": 32, "vocabulary": 300, "blocks.0.feed_forward.selection_bias": True, "blocks.0.feed_forward.top_k": 2}
    # The balancing loss is not linear in the batch.
    spec = load_model("tiny-moe", fields | {"selection_bias_rate": 0.05, "load_balancing_loss": 0.0})
    return spec, load_plan(spec, None, {"sequence": 16} | plan)[0]


def biases_after(plan: dict[str, object], steps: int) -> list[list[float]]:
    spec, resolved = biased(plan)
    model = build_model(spec, resolved, seed=0)
    optimizer = build_optimizer(model, resolved, learning_rate=1e-3, weight_decay=0.0)
    whole = list(itertools.islice(random_micro_batches(spec, resolved.model_copy(update={"micro_batch": 8}), seed=0), steps))
    for inputs, labels in whole:
        training_step(model, optimizer, zip(inputs.split(resolved.micro_batch), labels.split(resolved.micro_batch), strict=True), resolved)
    return [module.selection_bias.tolist() for module in model.modules() if isinstance(module, Router)]


def test_a_bias_moves_once_a_step_by_the_counts_of_all_micro_batches() -> None:
    plans = ({"micro_batch": 8}, {"micro_batch": 4, "global_batch": 8}, {"micro_batch": 8, "recomputation": "full"})
    once, twice, recomputed = (biases_after(plan, 3) for plan in plans)
    assert once == twice == recomputed
    assert any(bias != 0 for layer in once for bias in layer)
    assert all(abs(bias) <= 3 * 0.05 + 1e-6 for layer in once for bias in layer)
