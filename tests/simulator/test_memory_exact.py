"""Predicted memory of a step against the real trainer's, every storage of which is tracked."""

from collections.abc import Iterable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.components import Component, Phase
from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.records.step_report import Memory, TimelinePoint
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from trainer.measure.memory import MemoryPass, measure_memory
from trainer.measure.subject import build_subject, random_micro_batches

EQUAL = ("parameters_bytes", "buffers_bytes", "gradients_bytes", "optimizer_bytes", "inputs_bytes", "activations_bytes", "components")
PEAK_TOLERANCE = 1e-3


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def moe(**fields: object) -> dict[str, object]:
    return {"kind": "moe", "experts": 8, "top_k": 2, "expert_width": 48} | fields


def attention(**fields: object) -> dict[str, object]:
    return {"kind": "grouped_query", "heads": 4, "kv_heads": 4, "head_width": 16} | fields


def blocks(feed_forward: dict[str, object], mixer: dict[str, object] | None = None, count: int = 2) -> dict[str, object]:
    return {"count": count, "mixer": mixer or attention(), "feed_forward": feed_forward}


def resolved(model: dict[str, object], plan: dict[str, object]) -> tuple[ModelSpec, Plan]:
    small = {"width": 64, "vocabulary": 512, "maximum_positions": 128, "training_defaults.sequence": 32, "training_defaults.micro_batch": 2}
    spec = load_model("tiny-moe", small | {"blocks": [blocks(moe())]} | model)
    return spec, load_plan(spec, None, plan)[0]


def measured(spec: ModelSpec, plan: Plan) -> MemoryPass:
    return measure_memory(build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0))


def joined(points: Iterable[TimelinePoint]) -> Iterator[tuple[Phase, Component, int]]:
    """Neighbours of one component and phase as one point: a repeated stretch may end and begin with the same component."""
    last: tuple[Phase, Component, int] | None = None
    for point in points:
        if last is not None and last[:2] == (point.phase, point.component):
            last = (*last[:2], max(last[2], point.bytes))
            continue
        if last is not None:
            yield last
        last = (point.phase, point.component, point.bytes)
    if last is not None:
        yield last


def assert_equal_ledgers(spec: ModelSpec, plan: Plan) -> None:
    predicted, real = assert_equal_categories(spec, plan)
    lines = [list(joined(memory.timeline)) for memory in (predicted, real)]
    assert [point[:2] for point in lines[0]] == [point[:2] for point in lines[1]]
    tolerance = PEAK_TOLERANCE * real.peak_allocated_bytes
    assert [point[2] for point in lines[0]] == pytest.approx([point[2] for point in lines[1]], abs=tolerance)


def assert_equal_categories(spec: ModelSpec, plan: Plan) -> tuple[Memory, Memory]:
    predicted, real = step_memory(build_program(spec, plan, on_cpu=True), plan), measured(spec, plan).memory
    for field in EQUAL:
        assert getattr(predicted, field) == getattr(real, field), field
    tolerance = PEAK_TOLERANCE * real.peak_allocated_bytes
    assert predicted.peak_allocated_bytes == pytest.approx(real.peak_allocated_bytes, abs=tolerance)
    assert predicted.peak_at == real.peak_at
    assert predicted.at_peak == pytest.approx(real.at_peak, abs=tolerance)
    assert sum(real.at_peak.values()) == real.peak_allocated_bytes
    assert sum(predicted.at_peak.values()) == predicted.peak_allocated_bytes
    return predicted, real


SHAPES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "top-2 of 8 experts": ({}, {}),
    "one expert": ({"blocks": [blocks(moe(experts=1, top_k=1))]}, {}),
    "top-8 of 64 experts": ({"blocks": [blocks(moe(experts=64, top_k=8, expert_width=16))]}, {}),
    "top-4 of 4 experts, weights not normalised": ({"blocks": [blocks(moe(experts=4, top_k=4, normalise_weights=False))]}, {}),
    "uniform routing": ({}, {"routing": "uniform"}),
    "uniform routing of a sigmoid router": ({"blocks": [blocks(moe(router="sigmoid", top_k=3, weight_scale=2.5))]}, {"routing": "uniform"}),
    "sigmoid router": ({"blocks": [blocks(moe(router="sigmoid"))]}, {}),
    "sigmoid router, weights neither normalised nor scaled": ({"blocks": [blocks(moe(router="sigmoid", normalise_weights=False))]}, {}),
    "scaled weights": ({"blocks": [blocks(moe(weight_scale=1.5, top_k=4))]}, {}),
    "selection bias": ({"blocks": [blocks(moe(selection_bias=True))]}, {}),
    "selection bias of one of two groups": ({"blocks": [blocks(moe(router="sigmoid", selection_bias=True), count=1), blocks(moe())]}, {"global_batch": 6}),
    "shared experts": ({"blocks": [blocks(moe(shared_width=40))]}, {}),
    "shared experts, everything eager": (
        {"blocks": [blocks(moe(shared_width=96))]},
        {"implementation": {"norm": "eager", "swiglu": "eager", "experts": "loop", "optimizer": "for-loop"}},
    ),
    "half the capacity": ({"blocks": [blocks(moe(capacity_factor=0.5))]}, {}),
    "capacity of all tokens": ({"blocks": [blocks(moe(capacity_factor=8.0))]}, {"global_batch": 4}),
    "like DeepSeek-V3": (
        {"blocks": [blocks(moe(capacity_factor=1.25, shared_width=48, router="sigmoid", selection_bias=True, weight_scale=2.5, top_k=3))]},
        {"implementation": {"experts": "loop"}},
    ),
    "batched experts": ({"blocks": [blocks(moe(capacity_factor=1.0))]}, {"implementation": {"experts": "batched"}}),
    "batched experts of odd widths, recomputed, two micro-batches": (
        {"width": 66, "blocks": [blocks(moe(capacity_factor=0.7, expert_width=33, top_k=3, shared_width=24))]},
        {"global_batch": 4, "recomputation": ["attention", "experts"], "implementation": {"experts": "batched", "swiglu": "eager"}},
    ),
    "multi-query attention": ({"blocks": [blocks(moe(), attention(kv_heads=1))]}, {}),
    "grouped-query attention": ({"blocks": [blocks(moe(), attention(kv_heads=2, head_width=32))]}, {}),
    "norm over each head": ({"blocks": [blocks(moe(), attention(kv_heads=2, qk_norm="head"))]}, {}),
    "norm over all heads": ({"blocks": [blocks(moe(), attention(qk_norm="width"))]}, {"implementation": {"norm": "eager"}}),
    "untied head": ({"tied_embeddings": False}, {}),
    "two micro-batches": ({}, {"global_batch": 4}),
    "three micro-batches, untied, for-loop AdamW": ({"tied_embeddings": False}, {"global_batch": 6, "implementation": {"optimizer": "for-loop"}}),
    "for-loop AdamW": ({}, {"implementation": {"optimizer": "for-loop"}}),
    "experts in a loop": ({}, {"implementation": {"experts": "loop"}}),
    "experts in a loop, two micro-batches": ({}, {"global_batch": 4, "implementation": {"experts": "loop"}}),
    "gathering permutation": ({}, {"implementation": {"permutation": "gather"}}),
    "gathering permutation, top-8 of 64 experts, two micro-batches": (
        {"blocks": [blocks(moe(experts=64, top_k=8, expert_width=16))]},
        {"global_batch": 4, "implementation": {"permutation": "gather"}},
    ),
    "packed experts": ({}, {"implementation": {"experts": "packed"}}),
    "packed experts, eager SwiGLU, two micro-batches": ({}, {"global_batch": 4, "implementation": {"experts": "packed", "swiglu": "eager"}}),
    "packed experts, gathered and recomputed": (
        {"blocks": [blocks(moe(shared_width=24, top_k=4))]},
        {"recomputation": ["attention", "experts"], "implementation": {"experts": "packed", "permutation": "gather"}},
    ),
    "packed experts, gathered, all of each block recomputed": (
        {},
        {"recomputation": "full", "implementation": {"experts": "packed", "permutation": "gather", "swiglu": "eager"}},
    ),
    "eager norm": ({}, {"implementation": {"norm": "eager"}}),
    "dense blocks, eager norm, then experts": (
        {"blocks": [blocks({"kind": "dense", "hidden_width": 96}, count=2), blocks(moe(), count=3)]},
        {"global_batch": 4, "implementation": {"norm": "eager"}},
    ),
    "eager SwiGLU": ({}, {"implementation": {"swiglu": "eager"}}),
    "everything eager": ({}, {"implementation": {"norm": "eager", "swiglu": "eager", "experts": "loop", "optimizer": "for-loop"}}),
    "chunked cross-entropy": ({}, {"implementation": {"cross_entropy": "chunked"}}),
    "chunked cross-entropy, three chunks, untied": (
        {"tied_embeddings": False, "vocabulary": 2048},
        {"micro_batch": 10, "implementation": {"cross_entropy": "chunked"}},
    ),
    "chunked cross-entropy, three chunks, two micro-batches": (
        {"vocabulary": 2048},
        {"micro_batch": 10, "global_batch": 20, "implementation": {"cross_entropy": "chunked"}},
    ),
    "chunked cross-entropy, untied, two micro-batches": (
        {"tied_embeddings": False},
        {"micro_batch": 10, "global_batch": 20, "implementation": {"cross_entropy": "chunked"}},
    ),
    "in-place cross-entropy": ({}, {"implementation": {"cross_entropy": "in-place"}}),
    "in-place cross-entropy, untied, two micro-batches": ({"tied_embeddings": False}, {"global_batch": 4, "implementation": {"cross_entropy": "in-place"}}),
    "all of each block recomputed": ({}, {"recomputation": "full"}),
    "all of each block recomputed, two micro-batches": ({"tied_embeddings": False}, {"recomputation": "full", "global_batch": 4}),
    "attention recomputed": ({}, {"recomputation": ["attention"]}),
    "feed-forwards recomputed": ({"blocks": [blocks({"kind": "dense", "hidden_width": 96}, count=1), blocks(moe())]}, {"recomputation": ["feed_forward"]}),
    "attention and experts recomputed": ({"blocks": [blocks(moe(shared_width=24, top_k=4))]}, {"recomputation": ["attention", "experts"]}),
    "dense": ({"blocks": [blocks({"kind": "dense", "hidden_width": 96})]}, {}),
    "dense, eager SwiGLU, untied": (
        {"blocks": [blocks({"kind": "dense", "hidden_width": 96})], "tied_embeddings": False},
        {"implementation": {"swiglu": "eager"}},
    ),
    "dense blocks, then experts with another head width": (
        {"blocks": [blocks({"kind": "dense", "hidden_width": 96}, count=1), blocks(moe(experts=16), attention(heads=2, kv_heads=2, head_width=32))]},
        {"implementation": {"optimizer": "for-loop"}},
    ),
    "no auxiliary losses": ({"load_balancing_loss": 0.0, "router_z_loss": 0.0}, {}),
    "load-balancing loss alone": ({"router_z_loss": 0.0}, {}),
    "z-loss alone, no clipping": ({"load_balancing_loss": 0.0}, {"gradient_clipping": None}),
    "one long sequence": ({}, {"micro_batch": 1, "sequence": 128}),
    "many short sequences": ({}, {"micro_batch": 32, "sequence": 8}),
    "one layer": ({"blocks": [blocks(moe(), count=1)]}, {}),
}

PEAKS: dict[str, tuple[dict[str, object], dict[str, object], tuple[Phase, Component]]] = {
    "cross-entropy": ({"vocabulary": 2048}, {"micro_batch": 8}, (Phase.BACKWARD, Component.CROSS_ENTROPY)),
    "an expert's backward": ({"vocabulary": 64, "blocks": [blocks(moe(top_k=4, expert_width=16))]}, {"micro_batch": 8}, (Phase.BACKWARD, Component.EXPERTS)),
    "a tied embedding's gradient": ({"vocabulary": 4096}, {"micro_batch": 1, "sequence": 8}, (Phase.BACKWARD, Component.EMBEDDING)),
    "for-loop AdamW": (
        {"blocks": [blocks(moe(expert_width=256))]},
        {"micro_batch": 1, "sequence": 8, "implementation": {"optimizer": "for-loop"}},
        (Phase.OPTIMIZER, Component.OPTIMIZER),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_predicted_and_measured_ledgers_are_equal(name: str) -> None:
    assert_equal_ledgers(*resolved(*SHAPES[name]))


@pytest.mark.parametrize("name", PEAKS)
def test_ledgers_are_equal_where_the_peak_lies_in(name: str) -> None:
    model, plan, where = PEAKS[name]
    spec, resolved_plan = resolved(model, plan)
    at = step_memory(build_program(spec, resolved_plan), resolved_plan).peak_at
    assert (at.phase, at.component) == where
    assert_equal_ledgers(spec, resolved_plan)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16"])
@pytest.mark.parametrize(
    "name",
    [
        "top-2 of 8 experts", "like DeepSeek-V3", "chunked cross-entropy, three chunks, untied", "all of each block recomputed", "eager norm",
        "dense blocks, eager norm, then experts", "in-place cross-entropy, untied, two micro-batches", "packed experts, gathered and recomputed",
        "batched experts",
    ],
)  # fmt: skip
def test_categories_and_peak_are_equal_in_16_bits(name: str, precision: str) -> None:
    model, plan = SHAPES[name]
    assert_equal_categories(*resolved(model, plan | {"precision": precision}))


@pytest.mark.usefixtures("rope_parts_on_cpu")
@pytest.mark.parametrize("name", ["two micro-batches", "norm over each head", "norm over all heads", "attention recomputed", "all of each block recomputed"])
def test_ledgers_are_equal_where_heads_are_turned_in_one_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.model.build._check_kernels_run_on", lambda device, plan: None)
    model, plan = SHAPES[name]
    assert_equal_ledgers(*resolved(model, plan | {"precision": "bf16-mixed", "implementation": {"rope": "triton"}}))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[ModelSpec, Plan]:
    """Small models and plans over everything that a plan implements."""
    kv_heads = draw(st.sampled_from([1, 2, 4]))
    mixer = attention(
        heads=kv_heads * draw(st.sampled_from([1, 2, 3])), kv_heads=kv_heads, head_width=draw(st.sampled_from([4, 8, 16])),
        qk_norm=draw(st.sampled_from(["none", "head", "width"])),
    )  # fmt: skip
    experts = draw(st.integers(1, 64))
    mixture = moe(
        experts=experts, top_k=draw(st.integers(1, min(experts, 8))), expert_width=4 * draw(st.integers(2, 32)), normalise_weights=draw(st.booleans()),
        router=draw(st.sampled_from(["softmax", "sigmoid"])), weight_scale=draw(st.sampled_from([1.0, 2.5])), selection_bias=draw(st.booleans()),
        shared_width=draw(st.sampled_from([0, 24])), capacity_factor=draw(st.sampled_from([None, 0.7, 1.25])),
    )  # fmt: skip
    dense = {"kind": "dense", "hidden_width": draw(st.integers(8, 200))}
    groups = draw(st.lists(st.sampled_from([mixture, dense]), min_size=1, max_size=2))
    model = {
        "width": 4 * draw(st.integers(8, 32)),
        "vocabulary": draw(st.integers(300, 2000)),
        "tied_embeddings": draw(st.booleans()),
        "load_balancing_loss": draw(st.sampled_from([0.0, 0.01])),
        "router_z_loss": draw(st.sampled_from([0.0, 0.001])),
        "blocks": [blocks(group, mixer, draw(st.integers(1, 3))) for group in groups],
    }
    micro_batch = draw(st.integers(1, 8))
    plan = {
        "sequence": draw(st.integers(8, 128)),
        "micro_batch": micro_batch,
        "global_batch": micro_batch * draw(st.integers(1, 2)),
        "recomputation": draw(
            st.sampled_from(["none", "full", ["attention"], ["feed_forward"], ["attention", "experts" if mixture in groups else "feed_forward"]])
        ),
        "routing": draw(st.sampled_from(["learned", "uniform"])),
        "gradient_clipping": draw(st.sampled_from([None, 1.0])),
        "implementation": {
            "norm": draw(st.sampled_from(["eager", "recompute"])),
            "swiglu": draw(st.sampled_from(["eager", "recompute"])),
            "cross_entropy": draw(st.sampled_from(["eager", "in-place", "chunked"])),
            "experts": draw(st.sampled_from(["grouped", "packed", "loop", *(["batched"] if mixture["capacity_factor"] is not None else [])])),
            "permutation": draw(st.sampled_from(["index_add", "gather"] if mixture["capacity_factor"] is None else ["index_add"])),
            "optimizer": draw(st.sampled_from(["fused", "for-loop"])),
        },
    }
    return resolved(model, plan)


FAST: dict[str, object] = {
    "precision": "bf16-split",
    "implementation": {"norm": "eager", "swiglu": "recompute", "router": "narrow", "permutation": "gather", "experts": "packed", "cross_entropy": "in-place"},
}
"""The plan ``fast`` without what a CPU cannot run: compiled blocks and Triton."""


@pytest.mark.parametrize(
    "model", [{}, {"vocabulary": 4096, "tied_embeddings": False}, {"blocks": [blocks(moe(experts=64, top_k=8, expert_width=16), count=3)]}]
)
@pytest.mark.parametrize("plan", [{}, {"gradient_clipping": None, "global_batch": 4}, {"routing": "uniform", "micro_batch": 8}])
def test_ledgers_of_the_fast_plan_are_equal_and_its_peak_within_32_bytes(model: dict[str, object], plan: dict[str, object]) -> None:
    spec, resolved_plan = resolved(model, FAST | plan)
    assert_equal_ledgers(spec, resolved_plan)
    predicted, real = assert_equal_categories(spec, resolved_plan)
    assert abs(predicted.peak_allocated_bytes - real.peak_allocated_bytes) <= 32


def test_the_peak_of_gathered_and_packed_experts_is_equal_within_32_bytes() -> None:
    model, plan = resolved({}, {"implementation": {"permutation": "gather", "experts": "packed"}})
    predicted, real = assert_equal_categories(model, plan)
    assert abs(predicted.peak_allocated_bytes - real.peak_allocated_bytes) <= 32


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16"])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_peak_of_batched_experts_is_equal_within_32_bytes(accumulated: int, precision: str) -> None:
    fields = {"micro_batch": 2, "global_batch": 2 * accumulated, "precision": precision, "implementation": {"experts": "batched"}}
    predicted, real = assert_equal_categories(*resolved({"blocks": [blocks(moe(capacity_factor=1.25))]}, fields))
    assert abs(predicted.peak_allocated_bytes - real.peak_allocated_bytes) <= 32


@given(shapes())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_ledgers_are_equal_for_drawn_shapes(shape: tuple[ModelSpec, Plan]) -> None:
    assert_equal_ledgers(*shape)
