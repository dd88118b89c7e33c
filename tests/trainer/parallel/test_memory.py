"""Predicted memory of every plan against what the ranks really hold, storage by storage; and what runs and is sent, by its names."""

from collections import Counter

import pytest

from fabrics.loading import load_fabric
from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.specs import ModelSpec, Plan
from simulator.specs.presets import DEVICES
from simulator.time.communication import Network
from simulator.time.step import step_time

EQUAL = ("parameters_bytes", "buffers_bytes", "gradients_bytes", "optimizer_bytes", "inputs_bytes", "activations_bytes")
PEAK_TOLERANCE = 1e-3

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
    "expert, capacity, batched": ({"ep": 2, "implementation.experts": "batched"}, {"blocks.0.feed_forward.capacity_factor": 1.0}),
    "expert-tensor, capacity, batched": ({"ep": 1, "etp": 2, "implementation.experts": "batched"}, {"blocks.0.feed_forward.capacity_factor": 1.0}),
    "expert-tensor": ({"ep": 1, "etp": 2}, {}),
    "zero-2, three micro-batches": ({"ep": 1, "zero_stage": 2, "global_batch": 12}, {}),
    "zero-3": ({"ep": 1, "zero_stage": 3}, {}),
    "zero-3, mixed precision, two micro-batches": ({"ep": 1, "zero_stage": 3, "precision": "bf16-mixed", "global_batch": 8}, {}),
    "zero-3, dense and experts": ({"ep": 1, "zero_stage": 3}, {"blocks": DENSE}),
    "zero-3, experts that shards do not divide": ({"ep": 1, "zero_stage": 3}, {"blocks.0.feed_forward.experts": 5}),
    "expert x zero-3": ({"ep": 2, "zero_stage": 3}, {}),
    "zero-3, recomputed": ({"ep": 1, "zero_stage": 3, "recomputation": "full"}, {}),
    "expert x zero-3, experts recomputed": ({"ep": 2, "zero_stage": 3, "recomputation": ["experts"], "global_batch": 8}, {}),
    "tensor, recomputed": ({"ep": 1, "tp": 2, "recomputation": "full"}, {}),
    "pipeline, 1f1b": ({"ep": 1, "pp": 2, "global_batch": 8}, {}),
    "pipeline, gpipe": ({"ep": 1, "pp": 2, "global_batch": 8, "schedule": "gpipe"}, {}),
    "pipeline, gpipe, chunked, mixed precision": (
        {"ep": 1, "pp": 2, "global_batch": 12, "schedule": "gpipe", "precision": "bf16-mixed", "implementation.cross_entropy": "chunked"},
        {"blocks.0.count": 5},
    ),
    "pipeline, 1f1b, chunked, recomputed": (
        {"ep": 1, "pp": 2, "global_batch": 12, "recomputation": ["experts"], "implementation.cross_entropy": "chunked"},
        {"load_balancing_loss": 0.0},
    ),
    "pipeline, packed and gathered": (
        {"ep": 1, "pp": 2, "global_batch": 8, "implementation.experts": "packed", "implementation.permutation": "gather"},
        {},
    ),
    "pipeline, gpipe, split weights": (
        {"ep": 1, "pp": 2, "global_batch": 8, "schedule": "gpipe", "precision": "bf16-split", "implementation.cross_entropy": "in-place"},
        {},
    ),
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
    "pipeline x expert, gpipe": ({"ep": 2, "pp": 2, "global_batch": 16, "schedule": "gpipe"}, {"blocks.0.feed_forward.capacity_factor": 1.0}),
    "interleaved x expert": ({"ep": 2, "pp": 2, "global_batch": 16, "schedule": "interleaved", "virtual_stages": 2}, {}),
    "interleaved x expert-tensor": ({"ep": 1, "etp": 2, "pp": 2, "global_batch": 8, "schedule": "interleaved", "virtual_stages": 2}, {}),
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
        check_names(spec, resolved, replies)
        found = {stage: compared(spec, resolved, stage, [reply["memory"] for reply in replies]) for stage in range(resolved.pp)}
        if not any(found.values()):
            return
    pytest.fail(f"predicted and measured, by stage: {found}")


def check_names(spec, plan, replies):
    """The same components run in the same phases, and the same collectives as often with as many bytes, on the first rank of every stage."""
    network = Network(load_fabric("single-node", {}), plan)
    times = step_time([build_program(spec, plan, on_cpu=True, stage=stage) for stage in range(plan.pp)], plan, DEVICES.load("cpu"), network)
    for predicted, measured in zip(times, replies[:: plan.stage_ranks], strict=True):
        assert sorted(f"{row.phase} {row.component}" for row in predicted.rows) == measured["names"]
        calls, sent = Counter(), Counter()
        for row in predicted.communication:
            name = f"{row.name} {row.component} {row.collective}"
            calls[name] += row.calls
            sent[name] += row.calls * row.bytes_per_call
        assert {name: (calls[name], sent[name]) for name in calls} == measured["communication"]


def compared(spec, plan, stage, answers):
    """What differs on a stage: name to predicted and measured."""
    predicted = step_memory(build_program(spec, plan, on_cpu=True, stage=stage), plan)
    assert sum(predicted.at_peak.values()) == predicted.peak_allocated_bytes
    measured = answers[stage * plan.stage_ranks : (stage + 1) * plan.stage_ranks]
    wrong = {name: (getattr(predicted, name), measured[0][name]) for name in EQUAL if getattr(predicted, name) != measured[0][name]}
    peak = min(answer["peak_allocated_bytes"] for answer in measured if answer["optimizer_bytes"] == measured[0]["optimizer_bytes"])
    if predicted.peak_allocated_bytes != pytest.approx(peak, rel=PEAK_TOLERANCE):
        wrong["peak_allocated_bytes"] = predicted.peak_allocated_bytes, peak
    return wrong


@pytest.mark.parametrize("name", TWO)
def test_memory_on_two_ranks(ranks, name):
    check(ranks, 2, *TWO[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_memory_on_four_ranks(ranks, name):
    check(ranks, 4, *FOUR[name])
