"""Predicted memory of every plan against what the ranks really hold, storage by storage."""

import pytest

from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.specs import ModelSpec, Plan

EQUAL = ("parameters_bytes", "buffers_bytes", "gradients_bytes", "optimizer_bytes", "inputs_bytes", "activations_bytes")
OWNED = ("parameters_bytes", "buffers_bytes", "gradients_bytes", "optimizer_bytes")
PEAK_TOLERANCE = 1e-3
PIPELINE_TOLERANCE = 1e-2
"""What the schedules hold of rows that were sent is known to a row or two."""

SHARED = {"vocabulary": 65, "tied_embeddings": False, "blocks.0.feed_forward.shared_width": 12}
DENSE = [
    {
        "count": 2,
        "mixer": {"kind": "grouped_query", "heads": 4, "kv_heads": 2, "head_width": 8, "qk_norm": "head"},
        "feed_forward": {"kind": "dense", "hidden_width": 48},
    },
    {
        "count": 3,
        "mixer": {"kind": "grouped_query", "heads": 2, "kv_heads": 2, "head_width": 16},
        "feed_forward": {"kind": "moe", "experts": 8, "top_k": 2, "expert_width": 16},
    },
]

PACKED = {"implementation.experts": "packed", "implementation.permutation": "gather"}

TWO = {
    "data": ({"ep": 1}, {}),
    "data, small buckets, three micro-batches": ({"ep": 1, "gradient_bucket_bytes": 20000, "global_batch": 12}, {}),
    "expert": ({"ep": 2}, {}),
    "expert, capacity": ({"ep": 2}, {"blocks.0.feed_forward.capacity_factor": 1.0}),
    "expert-tensor": ({"ep": 1, "etp": 2}, {}),
    "zero-2, three micro-batches": ({"ep": 1, "zero_stage": 2, "global_batch": 12}, {}),
    "zero-3": ({"ep": 1, "zero_stage": 3}, {}),
    "zero-3, mixed precision, two micro-batches": ({"ep": 1, "zero_stage": 3, "precision": "bf16-mixed", "global_batch": 8}, {}),
    "zero-3, dense and experts": ({"ep": 1, "zero_stage": 3}, {"blocks": DENSE}),
    "expert x zero-3": ({"ep": 2, "zero_stage": 3}, {}),
    "zero-3, recomputed": ({"ep": 1, "zero_stage": 3, "recomputation": "full"}, {}),
    "expert x zero-3, experts recomputed": ({"ep": 2, "zero_stage": 3, "recomputation": ["experts"], "global_batch": 8}, {}),
    "tensor, recomputed": ({"ep": 1, "tp": 2, "recomputation": "full"}, {}),
    "pipeline, 1f1b": ({"ep": 1, "pp": 2, "global_batch": 8}, {}),
    "pipeline, gpipe": ({"ep": 1, "pp": 2, "global_batch": 8, "schedule": "gpipe"}, {}),
    "pipeline, interleaved": ({"ep": 1, "pp": 2, "global_batch": 8, "schedule": "interleaved", "virtual_stages": 2}, {"blocks.0.count": 5}),
    "tensor": ({"ep": 1, "tp": 2, "global_batch": 4}, {}),
    "tensor, dense and experts": ({"ep": 2, "tp": 2}, {"blocks": DENSE}),
    "expert, packed and gathered": ({"ep": 2} | PACKED, {}),
    "expert x zero-3, packed and gathered, experts recomputed": ({"ep": 2, "zero_stage": 3, "recomputation": ["experts"]} | PACKED, {}),
    "tensor, packed and gathered": ({"ep": 1, "tp": 2} | PACKED, {}),
}
FOUR = {
    "expert x data, for-loop AdamW": ({"ep": 2, "global_batch": 16, "implementation.optimizer": "for-loop"}, {}),
    "expert x expert-tensor": ({"ep": 2, "etp": 2}, {}),
    "expert x zero-2, shared experts, untied": ({"ep": 4, "zero_stage": 2, "global_batch": 16}, SHARED),
    "expert x zero-3, shared experts, untied": ({"ep": 2, "zero_stage": 3}, SHARED),
    "hybrid, mixed precision": ({"ep": 1, "zero_stage": 3, "replicas": 2, "precision": "bf16-mixed", "global_batch": 16}, {}),
    "hybrid x expert": ({"ep": 2, "zero_stage": 3, "replicas": 2, "global_batch": 24}, {}),
    "pipeline x expert": ({"ep": 2, "pp": 2, "global_batch": 16}, {}),
    "four stages": ({"ep": 1, "pp": 4, "global_batch": 12}, {"blocks.0.count": 6}),
    "pipeline x tensor x expert, untied": ({"ep": 2, "pp": 2, "tp": 2, "global_batch": 8}, {"tied_embeddings": False}),
    "tensor x expert x expert-tensor": ({"ep": 2, "tp": 2, "etp": 2}, {}),
    "tensor x expert x zero-3": ({"ep": 2, "tp": 2, "zero_stage": 3, "global_batch": 8}, {}),
    "tensor x data, counts of all ranks": ({"ep": 2, "tp": 2, "auxiliary_loss_scope": "global", "global_batch": 8}, {}),
}


def check(ranks, count, plan, model):
    """The first rank of a stage holds the most where a dimension does not divide. Gloo's threads may let go of a buffer late: the least counts."""
    case = {"run": "memory", "plan": {"ranks": count, "routing": "uniform", **plan}, "model": model}
    for _ in range(3):
        replies = ranks(count).run(**case)
        spec, resolved = ModelSpec.model_validate(replies[0]["model"]), Plan.model_validate(replies[0]["plan"])
        found = {stage: compared(spec, resolved, stage, [reply["memory"] for reply in replies]) for stage in range(resolved.pp)}
        if not any(found.values()):
            return
    pytest.fail(f"predicted and measured, by stage: {found}")


def compared(spec, plan, stage, answers):
    """What differs on a stage: name to predicted and measured."""
    predicted = step_memory(build_program(spec, plan, on_cpu=True, stage=stage), plan)
    assert sum(predicted.at_peak.values()) == predicted.peak_allocated_bytes
    measured = answers[stage * plan.stage_ranks : (stage + 1) * plan.stage_ranks]
    names = EQUAL if plan.pp == 1 else OWNED
    wrong = {name: (getattr(predicted, name), measured[0][name]) for name in names if getattr(predicted, name) != measured[0][name]}
    peak = min(answer["peak_allocated_bytes"] for answer in measured if answer["optimizer_bytes"] == measured[0]["optimizer_bytes"])
    tolerance = PEAK_TOLERANCE if plan.pp == 1 else PIPELINE_TOLERANCE
    if predicted.peak_allocated_bytes != pytest.approx(peak, rel=tolerance):
        wrong["peak_allocated_bytes"] = predicted.peak_allocated_bytes, peak
    return wrong


@pytest.mark.parametrize("name", TWO)
def test_memory_on_two_ranks(ranks, name):
    check(ranks, 2, *TWO[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_memory_on_four_ranks(ranks, name):
    check(ranks, 4, *FOUR[name])
