"""Kernels of one operation compute one function: against the formula in float64, and in whole training steps."""

import pytest
import torch

from simulator.specs import load_model, load_plan
from trainer.bench.families import FAMILIES
from trainer.bench.kernels import measure_family
from trainer.bench.shape import BenchShape
from trainer.kernels.grouped_linear import GROUPED_LINEARS
from trainer.kernels.permutation import PERMUTATIONS
from trainer.loop.evaluate import evaluate
from trainer.measure.subject import build_subject, random_micro_batches
from trainer.step import training_step

SHAPE = BenchShape(tokens=128, width=64, experts=8, top_k=2, expert_width=32, vocabulary=300, heads=2, sequence=32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("operation", FAMILIES)
def test_bf16_kernels_on_cuda_are_close_to_float64(operation):
    for row in measure_family(operation, FAMILIES[operation], SHAPE, dtype="bf16", device="cuda", repeats=5):
        assert row.forward is not None, row.note
        assert max(row.forward_error, row.gradient_error) < 1e-2, row.kernel


@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-6), ("bf16", 5e-3)])
def test_products_of_experts_are_close_to_a_loop_in_float64(dtype, bound):
    rows = measure_family("experts", FAMILIES["experts"], SHAPE, dtype=dtype, device="cpu", repeats=1)
    assert {row.kernel for row in rows} == {"grouped", "loop", "batched"}
    for row in rows:
        assert row.forward is not None, row.note
        assert max(row.forward_error, row.gradient_error) < bound, row.kernel


def test_batched_products_of_any_width_in_float64_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    x_RI, weight_EIO, pull_RO = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((15, 7), (3, 7, 5), (15, 5)))
    ends_E = torch.tensor([5, 10, 15], dtype=torch.int32)
    found = []
    for name in ("batched", "loop"):
        factors = [factor.clone().requires_grad_() for factor in (x_RI, weight_EIO)]
        out_RO = GROUPED_LINEARS[name](*factors, ends_E)
        found.append([out_RO.detach(), *torch.autograd.grad(out_RO, factors, pull_RO)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-13, atol=1e-14)


def test_batched_products_want_as_many_rows_of_every_expert():
    with pytest.raises(ValueError, match="and 16 are no multiple of 3 experts"):
        GROUPED_LINEARS["batched"](torch.zeros(16, 4), torch.zeros(3, 4, 4), torch.tensor([5, 10, 16]))


def test_gathering_orders_rows_as_adding_does():
    expert_TK = torch.stack([torch.randperm(6)[:3] for _ in range(40)])
    counts_E = torch.bincount(expert_TK.flatten(), minlength=6)
    added, gathered = (PERMUTATIONS[name].order(expert_TK, counts_E) for name in ("index_add", "gather"))
    assert torch.equal(added.token_R, gathered.token_R.long())
    assert torch.equal(added.ends_E, gathered.ends_E)
    assert torch.equal(gathered.slot_R.long()[gathered.row_TK.flatten().long()], torch.arange(120))


def subject_of(precision="fp32", capacity_factor=None, expert_width=128, **implementation):
    spec = load_model("tiny-moe", {"width": 64, "blocks.0.feed_forward.capacity_factor": capacity_factor, "blocks.0.feed_forward.expert_width": expert_width})
    plan, _ = load_plan(spec, None, {"micro_batch": 2, "sequence": 32, "precision": precision, "implementation": implementation})
    return build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0), plan


def losses(precision="fp32", **settings):
    subject, plan = subject_of(precision, **settings)
    return [training_step(subject.model, subject.optimizer, subject.micro_batches, plan, subject.parallel).language_model.item() for _ in range(3)]


@pytest.mark.parametrize(
    "kernels",
    [{"permutation": "gather"}, {"experts": "packed"}, {"cross_entropy": "in-place"}, {"router": "narrow"}],
    ids=lambda kernels: "-".join(kernels.values()),
)
def test_training_steps_do_not_depend_on_the_kernel(kernels):
    assert losses(**kernels) == pytest.approx(losses(), rel=1e-5)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16-mixed", 2e-3)])
def test_training_steps_do_not_depend_on_whether_experts_are_batched(precision, bound):
    assert losses(precision, capacity_factor=1.0, experts="batched") == pytest.approx(losses(precision, capacity_factor=1.0), rel=bound)


def test_split_weights_train_like_fp32_weights_under_mixed_precision():
    assert losses("bf16-split") == pytest.approx(losses("bf16-mixed"), rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("expert_width", [128, 33])
def test_compiled_blocks_of_batched_experts_train_and_validate_like_eager_ones(expert_width):
    found = []
    for mode in ("none", "block"):
        subject, plan = subject_of(capacity_factor=1.25, expert_width=expert_width, experts="batched", compile=mode)
        trained = training_step(subject.model, subject.optimizer, subject.micro_batches, plan, subject.parallel).language_model.item()
        found.append((trained, evaluate(subject.model, [next(subject.micro_batches)]).loss_nats_per_token))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.slow
def test_compiled_blocks_train_like_eager_ones():
    kernels = {"norm": "eager", "swiglu": "eager", "permutation": "gather", "experts": "packed", "cross_entropy": "in-place", "router": "narrow"}
    assert losses("bf16-split", compile="block", **kernels) == pytest.approx(losses("bf16-split", **kernels), rel=2e-3)
