"""Kernels of one operation compute one function: against the formula in float64, and in whole training steps."""

import pytest
import torch

from simulator.specs import load_model, load_plan
from trainer.bench.families import FAMILIES
from trainer.bench.kernels import measure_family
from trainer.bench.shape import BenchShape
from trainer.kernels.permutation import PERMUTATIONS
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


def test_gathering_orders_rows_as_adding_does():
    expert_TK = torch.stack([torch.randperm(6)[:3] for _ in range(40)])
    counts_E = torch.bincount(expert_TK.flatten(), minlength=6)
    added, gathered = (PERMUTATIONS[name].order(expert_TK, counts_E) for name in ("index_add", "gather"))
    assert torch.equal(added.token_R, gathered.token_R.long())
    assert torch.equal(added.ends_E, gathered.ends_E)
    assert torch.equal(gathered.slot_R.long()[gathered.row_TK.flatten().long()], torch.arange(120))


def losses(precision="fp32", **implementation):
    spec = load_model("tiny-moe", {"width": 64})
    plan, _ = load_plan(spec, None, {"micro_batch": 2, "sequence": 32, "precision": precision, "implementation": implementation})
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0)
    return [training_step(subject.model, subject.optimizer, subject.micro_batches, plan, subject.parallel).language_model.item() for _ in range(3)]


@pytest.mark.parametrize(
    "kernels",
    [{"permutation": "gather"}, {"experts": "packed"}, {"cross_entropy": "in-place"}, {"router": "narrow"}],
    ids=lambda kernels: "-".join(kernels.values()),
)
def test_training_steps_do_not_depend_on_the_kernel(kernels):
    assert losses(**kernels) == pytest.approx(losses(), rel=1e-5)


def test_split_weights_train_like_fp32_weights_under_mixed_precision():
    assert losses("bf16-split") == pytest.approx(losses("bf16-mixed"), rel=2e-3)


@pytest.mark.slow
def test_compiled_blocks_train_like_eager_ones():
    kernels = {"norm": "eager", "swiglu": "eager", "permutation": "gather", "experts": "packed", "cross_entropy": "in-place", "router": "narrow"}
    assert losses("bf16-split", compile="block", **kernels) == pytest.approx(losses("bf16-split", **kernels), rel=2e-3)
