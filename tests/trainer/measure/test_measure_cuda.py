"""The CUDA side of ``measure``."""

import pytest
import torch

from simulator.components import Component
from simulator.specs import load_model, load_plan
from trainer.measure.report import measure_step
from trainer.measure.subject import build_subject, random_micro_batches

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("optimizer", ["fused", "for-loop"])
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_peak_is_the_allocators_and_categories_add_up_to_it(precision: str, optimizer: str) -> None:
    spec = load_model("tiny-moe")
    plan, _ = load_plan(spec, None, {"precision": precision, "global_batch": 32, "implementation": {"optimizer": optimizer}})
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0, device="cuda"), seed=0, device="cuda")
    report = measure_step(subject, repeats=3, data="random", defaults=[]).report
    memory, time = report.memory, report.time
    assert sum(memory.at_peak.values()) == memory.peak_allocated_bytes
    assert memory.peak_reserved_bytes is not None
    assert memory.peak_reserved_bytes >= memory.peak_allocated_bytes > memory.parameters_bytes + memory.optimizer_bytes
    assert "CUDA allocator" in report.provenance.memory_source
    assert "CUDA events" in report.provenance.time_source
    assert sum(row.time_s for row in time.rows) + time.other_s == pytest.approx(time.step_s)
    assert Component.EXPERTS in {row.component for row in time.rows}
