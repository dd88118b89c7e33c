"""fp32 weights as a bf16 parameter and an int16 remainder."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.split_adamw import SplitAdamW, joined, parted


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**99), max_value=2.0**99), min_size=1, max_size=50))
def test_a_weight_comes_back_bit_for_bit(values):
    weight = torch.tensor(values, dtype=torch.float32)
    high, low = parted(weight)
    assert torch.equal(joined(high, low), weight)
    assert torch.all((high.float() - weight).abs() <= (weight.to(torch.bfloat16).float() - weight).abs() * (1 + 1e-6))


def test_steps_are_those_of_adamw_in_fp32():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, 7, generator=generator).to(torch.bfloat16)
    split, plain = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    optimizers = SplitAdamW([{"params": [split]}], **settings), torch.optim.AdamW([plain], **settings)
    for _ in range(20):
        split.grad = torch.randn(50, 7, generator=generator).to(torch.bfloat16)
        plain.grad = split.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(joined(split.detach(), optimizers[0].state[split]["remainder"]), plain.detach(), rtol=1e-6, atol=1e-7)


def test_states_keep_their_types_when_they_are_loaded():
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    parameter.grad = torch.ones_like(parameter)
    optimizer = SplitAdamW([{"params": [parameter]}], lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[parameter].items()}
    optimizer.load_state_dict(optimizer.state_dict())
    assert all(torch.equal(optimizer.state[parameter][name], value) and optimizer.state[parameter][name].dtype == value.dtype for name, value in before.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_cuda_kernel_is_the_formula():
    start = torch.randn(10_001).to(torch.bfloat16)
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    parameters = [torch.nn.Parameter(start.clone().to(device)) for device in ("cpu", "cuda")]
    optimizers = [SplitAdamW([{"params": [parameter]}], **settings) for parameter in parameters]
    for _ in range(5):
        grad = torch.randn(10_001).to(torch.bfloat16)
        for parameter, optimizer in zip(parameters, optimizers, strict=True):
            parameter.grad = grad.to(parameter.device)
            optimizer.step()
    weights = [joined(parameter.detach(), optimizer.state[parameter]["remainder"]).cpu() for parameter, optimizer in zip(parameters, optimizers, strict=True)]
    assert torch.allclose(*weights, rtol=1e-5, atol=1e-6)
