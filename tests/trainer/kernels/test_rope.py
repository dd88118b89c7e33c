"""Heads turned in one pass: the Triton kernel against float64, and whole models with it against models without.

On CPU its formula stands in for the kernel, for what does not depend on who computes it.
"""

import pytest
import torch
from torch import Tensor

from configuration.errors import ConfigurationError
from simulator.specs import load_model, load_plan
from trainer.kernels.rope import PACKED_ROPES, ROPES, eager, tables
from trainer.kernels.rope_parts import rope_parts, rope_parts_backward
from trainer.measure.subject import random_micro_batches
from trainer.model import build_model
from trainer.model.cache import KVCache

gpu = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
SHAPES = {
    "many heads": (2, 64, [16, 16, 16], 64),
    "few keys": (3, 33, [12, 4, 4], 128),
    "odd": (1, 17, [3, 1, 1], 40),
    "heads that fill no vector": (2, 5, [5, 5, 5], 6),
    "one token": (1, 1, [6, 2, 2], 96),
    "wide heads": (2, 9, [4, 2, 2], 256),
    "queries alone": (3, 21, [7], 80),
}

pytestmark = pytest.mark.usefixtures("rope_parts_on_cpu")


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def wide_turn(x_BSHC: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    return eager(x_BSHC.double(), cosine.double(), sine.double())


def gradients_of(heads: list[int], batch: int, sequence: int, width: int, memory: str, dtype: torch.dtype, device: str) -> list[Tensor]:
    made = []
    for count in heads:
        if memory == "transposed":
            made.append(torch.randn(batch, count, sequence, width, device=device).transpose(1, 2))
        elif memory == "part of more":
            made.append(torch.randn(batch, sequence + 1, count + 2, width, device=device)[:, 1:, 1:-1])
        else:
            made.append(torch.randn(batch, sequence, count, width, device=device))
    return [gradient.to(dtype) for gradient in made]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-3)])
@pytest.mark.parametrize("name", SHAPES)
def test_parts_and_the_gradient_of_the_whole_are_close_to_float64(name: str, dtype: torch.dtype, bound: float, device: str) -> None:
    batch, sequence, heads, width = SHAPES[name]
    torch.manual_seed(0)
    whole = torch.randn(batch * sequence, sum(heads) * width + 8, device=device).to(dtype)[:, 8:]
    angles = [table[3:] for table in tables(sequence + 3, width, 10000.0, device)]
    columns = torch.split(whole, [count * width for count in heads], -1)
    turned = min(2, len(heads))
    parts = rope_parts(whole, *angles, heads, turned)
    for index, (part, column) in enumerate(zip(parts, columns, strict=True)):
        assert part.is_contiguous()
        given = column.reshape(part.shape)
        if index < turned:
            assert relative(part, wide_turn(given, *angles)) < bound
        else:
            assert torch.equal(part, given)
    for memory in ("plain", "transposed", "part of more"):
        gradients = gradients_of(heads, batch, sequence, width, memory, dtype, device)
        back = [wide_turn(gradient, angles[0], -angles[1]) if index < turned else gradient.double() for index, gradient in enumerate(gradients)]
        want = torch.cat([part.flatten(2).flatten(0, 1) for part in back], -1)
        assert relative(rope_parts_backward(gradients, *angles, turned), want) < bound


@pytest.mark.parametrize("device", DEVICES)
def test_autograd_gives_the_gradient_of_the_formula_and_the_fakes_tell_what_comes(device: str) -> None:
    whole = torch.randn(10, 8 * 8, device=device, requires_grad=True)
    angles = tables(5, 8, 10000.0, device)
    pulls = [torch.randn(2, 5, count, 8, device=device) for count in (4, 2, 2)]
    found = [torch.autograd.grad(PACKED_ROPES[name](whole, *angles, [4, 2, 2]), whole, pulls)[0] for name in ("triton", "eager")]
    assert torch.allclose(*found, atol=1e-6)
    one = [torch.autograd.grad(ROPES[name](whole.view(2, 5, 8, 8), *angles), whole, pulls[0].repeat(1, 1, 2, 1))[0] for name in ("triton", "eager")]
    assert torch.allclose(*one, atol=1e-6)
    torch.library.opcheck(rope_parts, (whole, *angles, [4, 2, 2], 2))
    torch.library.opcheck(rope_parts_backward, (pulls, *angles, 2))


def gradients_under(rope: str, device: str, precision: str, **fields: object) -> dict[str, Tensor]:
    spec = load_model("tiny-moe", {"width": 64, "blocks.0.mixer.kv_heads": 2, "blocks.0.mixer.qk_norm": fields.pop("qk_norm", "none")})
    settings = {"micro_batch": 2, "sequence": 48, "precision": precision, "routing": "uniform", "implementation": {"rope": rope, **fields}}
    plan = load_plan(spec, None, settings)[0]
    model = build_model(spec, plan, seed=0, device=device)
    inputs_BS, labels_BS = next(random_micro_batches(spec, plan, seed=0, device=device))
    model(inputs_BS, labels_BS).total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_equal_gradients(device: str, precision: str, bound: float, monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
    if device == "cpu":
        monkeypatch.setattr("trainer.model.build._check_kernels_run_on", lambda device, plan: None)
    plain, turned = (gradients_under(rope, device, precision, **fields) for rope in ("eager", "triton"))
    assert turned.keys() == plain.keys()
    assert max(relative(turned[name], plain[name].double()) for name in plain) < bound


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("qk_norm", ["none", "head", "width"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16-mixed", 2e-2)])
def test_gradients_of_a_whole_model_are_those_without(precision: str, bound: float, qk_norm: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal_gradients(device, precision, bound, monkeypatch, qk_norm=qk_norm)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("qk_norm", ["none", "head"])
def test_gradients_of_compiled_blocks_are_those_without(qk_norm: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A break of the graph would be an error: blocks are compiled as one."""
    torch._dynamo.reset()
    kernels = {"norm": "eager", "swiglu": "eager", "permutation": "gather", "experts": "packed", "compile": "block"}
    assert_equal_gradients(device, "bf16-mixed", 3e-2, monkeypatch, qk_norm=qk_norm, **kernels)


@pytest.mark.parametrize("device", DEVICES)
def test_logits_with_a_cache_are_those_of_the_whole_sequence(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.model.build._check_kernels_run_on", lambda device, plan: None)
    spec = load_model("tiny-moe", {"width": 64, "blocks.0.mixer.kv_heads": 2})
    plan = load_plan(spec, None, {"precision": "fp32", "implementation": {"rope": "triton"}})[0]
    model = build_model(spec, plan, seed=0, device=device).eval()
    ids_BS = torch.randint(spec.vocabulary, (2, 12), device=device)
    cache = KVCache(spec.layers)
    with torch.no_grad():
        steps = torch.cat([model.logits(ids, cache) for ids in (ids_BS[:, :7], ids_BS[:, 7:8], ids_BS[:, 8:])], 1)
        assert torch.allclose(steps, model.logits(ids_BS), atol=1e-4)


def test_a_cpu_is_told_that_it_has_no_such_kernel() -> None:
    spec = load_model("tiny-moe")
    with pytest.raises(ConfigurationError, match=r"plan.implementation.rope triton needs a CUDA device \(legal on cpu: eager\)"):
        build_model(spec, load_plan(spec, None, {"implementation": {"rope": "triton"}})[0], seed=0)
