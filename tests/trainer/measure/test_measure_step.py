"""Time rows, names and the allocator's account of real steps."""

from collections import Counter

import pytest

from simulator.components import Component, Phase
from simulator.program.build import build_program
from simulator.program.parts import Program
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from trainer.measure.allocator import agrees, allocator_peak_bytes
from trainer.measure.memory import OWNERS, measure_memory
from trainer.measure.report import measure_step
from trainer.measure.subject import Subject, build_subject, random_micro_batches
from trainer.model import build_model

DENSE = {"count": 1, "mixer": {"heads": 4, "kv_heads": 2, "head_width": 16, "qk_norm": "head"}, "feed_forward": {"kind": "dense", "hidden_width": 96}}
CASES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "experts": ({}, {}),
    "untied, accumulating, for-loop AdamW, experts in a loop": (
        {"tied_embeddings": False},
        {"global_batch": 4, "implementation": {"optimizer": "for-loop", "experts": "loop"}},
    ),
    "no auxiliary losses, no clipping": ({"load_balancing_loss": 0.0, "router_z_loss": 0.0}, {"gradient_clipping": None}),
    "dense with norms of queries and keys": ({"blocks": [DENSE]}, {}),
    "packed experts": ({}, {"implementation": {"experts": "packed"}}),
    "packed experts, gathered": ({}, {"implementation": {"experts": "packed", "permutation": "gather"}}),
    "batched experts": ({"blocks.0.feed_forward.capacity_factor": 1.0}, {"implementation": {"experts": "batched"}}),
    "fast on a CPU": (
        {},
        {
            "precision": "bf16-split",
            "implementation": {
                "norm": "eager",
                "swiglu": "recompute",
                "router": "narrow",
                "permutation": "gather",
                "experts": "packed",
                "cross_entropy": "in-place",
            },
        },
    ),
    "all eager": ({}, {"implementation": {"norm": "eager", "swiglu": "eager"}}),
}


def resolved(name: str) -> tuple[ModelSpec, Plan]:
    model, plan = CASES[name]
    spec = load_model("tiny-moe", {"width": 64, "vocabulary": 512, "blocks.0.count": 2} | model)
    return spec, load_plan(spec, None, {"sequence": 32, "micro_batch": 2} | plan)[0]


def subject_of(name: str) -> Subject:
    spec, plan = resolved(name)
    return build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0)


def names(program: Program) -> set[tuple[Phase, Component]]:
    runs = [run for stretch in program.stretches for run in stretch.segment.passes[program.turns[0]]]
    runs += [stretch.operations for stretch in program.optimizer]
    return {(operation.phase, operation.component) for run in runs for operation in run}


@pytest.mark.parametrize("name", CASES)
def test_names_of_components_and_phases_are_the_programs(name: str) -> None:
    report = measure_step(subject_of(name), repeats=1, data="random", defaults=[]).report
    assert {(row.phase, row.component) for row in report.time.rows} == names(build_program(*resolved(name), on_cpu=True))
    assert {(point.phase, point.component) for point in report.memory.timeline} == names(build_program(*resolved(name), on_cpu=True))


def launches(program: Program) -> Counter[tuple[Phase, Component]]:
    found: Counter[tuple[Phase, Component]] = Counter()
    passes = [(stretch.segment.passes[program.turns[0]], stretch) for stretch in program.stretches]
    runs = [(taken.forward + taken.backward, stretch) for taken, stretch in passes]
    for operations, stretch in [*runs, *((stretch.operations, stretch) for stretch in program.optimizer)]:
        for operation in operations:
            found[operation.phase, operation.component] += stretch.count * round(operation.launches.at(stretch.bindings))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "experts", "packed experts, gathered", "batched experts", "fast on a CPU", "no auxiliary losses, no clipping",
        "dense with norms of queries and keys", "all eager",
    ],
)  # fmt: skip
def test_as_many_operations_run_as_the_program_launches(name: str) -> None:
    rows = measure_step(subject_of(name), repeats=1, data="random", defaults=[]).report.time.rows
    assert {(row.phase, row.component): row.operations for row in rows} == launches(build_program(*resolved(name), on_cpu=True))


@pytest.mark.parametrize("name", CASES)
def test_time_rows_are_disjoint_and_add_up_to_the_step(name: str) -> None:
    time = measure_step(subject_of(name), repeats=3, data="random", defaults=[]).report.time
    assert len({(row.phase, row.component) for row in time.rows}) == len(time.rows)
    parts = time.forward_s + time.backward_s + time.optimizer_s
    assert sum(row.time_s for row in time.rows) == pytest.approx(parts)
    assert parts + time.other_s == pytest.approx(time.step_s)
    assert all(row.time_s > 0 for row in time.rows)
    assert len(time.repeats_s) == 3
    assert min(time.repeats_s) <= time.step_s <= max(time.repeats_s)


@pytest.mark.parametrize("name", CASES)
def test_the_allocators_own_events_agree_within_a_ten_thousandth(name: str) -> None:
    subject = subject_of(name)
    memory = measure_memory(subject)
    assert agrees(memory.memory.peak_allocated_bytes, allocator_peak_bytes(subject, memory.before_bytes))


def test_agreement_means_a_ten_thousandth() -> None:
    assert agrees(10_001, 10_000)
    assert not agrees(10_002, 10_000)


def test_categories_at_the_peak_add_up_to_it() -> None:
    memory = measure_memory(subject_of("experts")).memory
    assert sum(memory.at_peak.values()) == memory.peak_allocated_bytes


def test_a_report_says_where_its_numbers_come_from() -> None:
    report = measure_step(subject_of("experts"), repeats=1, data="random", defaults=[]).report
    assert report.provenance.memory_source == "storages tracked at dispatch"
    assert "perf_counter" in report.provenance.time_source
    assert report.provenance.yardstick_flops_per_s > 0
    assert "tokens: random" in report.provenance.notes
    assert report.throughput.mfu is None


def test_every_parameter_has_an_owner_and_no_owner_is_idle() -> None:
    mixed = load_model("tiny-moe", {"tied_embeddings": False, "blocks.0.mixer.qk_norm": "head", "blocks.0.feed_forward.shared_width": 8})
    blocks = [mixed.blocks[0], mixed.blocks[0].model_copy(update={"feed_forward": load_model("tiny-moe", {"blocks": [DENSE]}).blocks[0].feed_forward})]
    spec = mixed.model_copy(update={"blocks": blocks})
    plans = [load_plan(spec, None, {"implementation.experts": experts})[0] for experts in ("grouped", "packed")]
    named = {name for plan in plans for name, _ in build_model(spec, plan, seed=0).named_parameters()}
    found = {name.split(".", 2)[2] if name.startswith("blocks.") else name for name in named}
    assert {name.removesuffix(".weight") for name in found} == set(OWNERS)


def test_the_report_tells_how_the_measured_step_loaded_the_experts() -> None:
    fields = {"blocks.0.feed_forward.capacity_factor": 0.5}
    spec = load_model("tiny-moe", fields)
    plan = load_plan(spec, None, {"sequence": 16, "micro_batch": 2, "global_batch": 4})[0]
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0)
    report = measure_step(subject, repeats=1, data="random", defaults=[]).report
    moe = spec.blocks[0].feed_forward
    assert [row.layer for row in report.layer_loads] == list(range(spec.layers))
    for row in report.layer_loads:
        assert sum(row.counts) == 64 * moe.top_k
        assert row.max_over_mean == pytest.approx(max(row.counts) * moe.experts / sum(row.counts))
        assert row.dead_experts == row.counts.count(0)
        assert sum(row.counts) / 2 <= row.dropped < sum(row.counts)
