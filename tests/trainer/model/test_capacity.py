"""Layers with a capacity, shared experts and scaled weights against a loop over tokens and experts in float64."""

import pytest
import torch
from torch import Tensor

from simulator.specs import Implementation, MoeFeedForward
from trainer.model.capacity import dropped_choices, order_with_capacity
from trainer.model.moe import MoE

TOKENS, WIDTH = 20, 16
BOUND = 3e-6
"""Relative error of fp32 against float64 that is allowed; the largest seen is a third of it."""


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def reference(layer: MoE, x_TD: Tensor, weights: dict[str, Tensor], capacity: int | None) -> Tensor:
    """Token by token; an expert takes the first ``capacity`` tokens that choose it."""
    weight_TK, expert_TK, _ = layer.router(x_TD.float())
    taken = [0] * layer.spec.experts
    rows = []
    for x_D, weight_K, expert_K in zip(x_TD, weight_TK.double(), expert_TK.tolist(), strict=True):
        out_D = torch.zeros_like(x_D)
        for weight, expert in zip(weight_K, expert_K, strict=True):
            taken[expert] += 1
            if capacity is not None and taken[expert] > capacity:
                continue
            hidden_F = silu(x_D @ weights["experts.gate"][expert]) * (x_D @ weights["experts.up"][expert])
            out_D = out_D + weight * (hidden_F @ weights["experts.down"][expert])
        if layer.shared is not None:
            hidden_W = silu(weights["shared.gate.weight"] @ x_D) * (weights["shared.up.weight"] @ x_D)
            out_D = out_D + weights["shared.down.weight"] @ hidden_W
        rows.append(out_D)
    return torch.stack(rows)


def layer_of(kernel: str = "grouped", width: int = WIDTH, **fields: object) -> MoE:
    spec = MoeFeedForward(**({"experts": 4, "top_k": 2, "expert_width": 8} | fields))
    layer = MoE(spec, width, Implementation(experts=kernel), load_balancing=False, router_z=False, uniform=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return layer


@pytest.mark.parametrize("shared_width", [0, 12])
@pytest.mark.parametrize(
    ("experts", "capacity_factor"),
    [(experts, factor) for experts in ("grouped", "loop", "batched") for factor in (None, 0.3, 1.0, 4.0) if (experts, factor) != ("batched", None)],
)
def test_a_layer_is_the_loop_over_tokens_and_experts(experts: str, capacity_factor: float | None, shared_width: int) -> None:
    layer = layer_of(experts, capacity_factor=capacity_factor, shared_width=shared_width, router="sigmoid", weight_scale=2.5)
    x_TD = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(3))
    out_TD, _ = layer(x_TD)
    wide = {name: parameter.detach().double().requires_grad_() for name, parameter in layer.named_parameters() if not name.startswith("router")}
    wanted_TD = reference(layer, x_TD.double(), wide, layer.spec.capacity(TOKENS))
    assert float((out_TD.double() - wanted_TD).norm().detach() / wanted_TD.norm().detach()) < BOUND

    layer.zero_grad()
    pull_TD = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(4))
    (out_TD * pull_TD).sum().backward()
    (wanted_TD * pull_TD.double()).sum().backward()
    for name, parameter in layer.named_parameters():
        if name in wide:
            assert float((parameter.grad.double() - wide[name].grad).norm() / wide[name].grad.norm()) < BOUND, name


def test_rows_beyond_the_capacity_are_dropped_in_the_order_of_tokens_and_counted() -> None:
    expert_TK = torch.tensor([[0, 1], [0, 2], [0, 1], [0, 3]])
    counts_E = torch.tensor([4, 2, 1, 1])
    order, empty = order_with_capacity(expert_TK, counts_E, capacity=2)
    # Expert 0 takes tokens 0 and 1, expert 1 tokens 0 and 2, the others one row each and one empty one.
    assert order.token_R.view(4, 2).tolist()[:2] == [[0, 1], [0, 2]]
    assert empty.view(4, 2).tolist() == [[False, False], [False, False], [False, True], [False, True]]
    assert order.ends_E.tolist() == [2, 4, 6, 8]
    assert dropped_choices(counts_E, 2) == 2


def test_capacity_by_hand() -> None:
    spec = MoeFeedForward(experts=8, top_k=2, expert_width=4, capacity_factor=1.25)
    # 1.25 x 20 x 2 / 8 = 6.25 rows; never more than there are tokens.
    assert (spec.capacity(20), spec.capacity(16), spec.capacity(1)) == (7, 5, 1)
    assert spec.model_copy(update={"capacity_factor": 100.0}).capacity(20) == 20
    assert spec.model_copy(update={"capacity_factor": None}).capacity(20) is None


def test_nothing_is_dropped_without_gradients() -> None:
    layer, roomy = layer_of(capacity_factor=0.25), layer_of()
    x_TD = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(layer(x_TD)[0], roomy(x_TD)[0])
    assert not torch.allclose(layer(x_TD)[0], roomy(x_TD)[0])


@pytest.mark.parametrize(("width", "expert_width"), [(16, 8), (17, 9)], ids=["grouped", "in a loop"])
def test_batched_experts_drop_nothing_without_gradients(width: int, expert_width: int) -> None:
    tight, roomy = (layer_of("batched", width, expert_width=expert_width, capacity_factor=factor) for factor in (0.25, 4.0))
    x_TD = torch.randn(TOKENS, width, generator=torch.Generator().manual_seed(3))
    # Four times the mean of 20 x 2 / 4 rows are all tokens: with gradients that layer drops nothing either.
    kept_TD, _ = roomy(x_TD)
    with torch.no_grad():
        assert torch.allclose(tight(x_TD)[0], kept_TD, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(tight(x_TD)[0], kept_TD, rtol=1e-2)


def test_batched_experts_have_the_weights_of_grouped_ones() -> None:
    batched, grouped = (layer_of(kernel, capacity_factor=1.0).state_dict() for kernel in ("batched", "grouped"))
    assert {name: weight.shape for name, weight in batched.items()} == {name: weight.shape for name, weight in grouped.items()}
