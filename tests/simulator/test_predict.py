"""Properties of predictions: what adds up, what may not grow, what depends on what."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabrics.loading import FABRICS, load_spec
from simulator.components import Component, Phase, Role
from simulator.program.build import build_program
from simulator.question import ask
from simulator.records.step_report import StepReport
from simulator.specs.device import PRICED_KINDS
from simulator.specs.presets import DEVICES

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def report(model: str = "tiny-moe", fabric: str = "spine-leaf", device: str | None = None, **fields: Any) -> StepReport:
    overrides: dict[str, dict[str, Any]] = {}
    for field, value in fields.items():
        kind, _, name = field.partition("__")
        overrides.setdefault(kind, {})[name.replace("__", ".")] = value
    return ask(model, fabric, device=device, settings=overrides).answer()


@pytest.mark.parametrize("model", ["tiny-moe", "mixtral-8x7b", "olmoe-1b-7b", "qwen3-30b-a3b", "llama-3-8b"])
def test_parts_of_time_add_up_and_categories_add_up_to_the_peak(model: str) -> None:
    answer = report(model)
    time, memory = answer.time, answer.memory
    parts = time.forward_s + time.backward_s + time.optimizer_s + time.exposed_communication_s + time.other_s
    assert parts == pytest.approx(time.step_s, rel=1e-9)
    assert sum(memory.at_peak.values()) == pytest.approx(memory.peak_allocated_bytes, abs=8)
    for phase, total in ((Phase.FORWARD, time.forward_s), (Phase.BACKWARD, time.backward_s), (Phase.OPTIMIZER, time.optimizer_s)):
        assert sum(row.time_s for row in time.rows if row.phase is phase) == pytest.approx(total, rel=1e-9)
    for name in ("parameters_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes"):
        assert sum(getattr(row, name) for row in memory.components) == getattr(memory, name)


@FEW
@given(factor=st.floats(1.0, 10.0), model=st.sampled_from(["tiny-moe", "olmoe-1b-7b"]))
def test_more_bandwidth_is_never_slower(factor: float, model: str) -> None:
    slow = report(model, fabric__oversubscription=2.0)
    fast = report(model, fabric__oversubscription=2.0, fabric__link_bytes_per_s=50e9 * factor)
    assert fast.time.step_s <= slow.time.step_s * (1 + 1e-9)


@FEW
@given(low=st.floats(1.0, 8.0), factor=st.floats(1.0, 4.0))
def test_more_oversubscription_is_never_faster(low: float, factor: float) -> None:
    assert report("olmoe-1b-7b", fabric__oversubscription=low).time.step_s <= report("olmoe-1b-7b", fabric__oversubscription=low * factor).time.step_s * (
        1 + 1e-9
    )


@FEW
@given(batch=st.integers(1, 8), more=st.integers(1, 4))
def test_a_larger_micro_batch_never_takes_less_memory(batch: int, more: int) -> None:
    small, large = report(plan__micro_batch=batch), report(plan__micro_batch=batch + more)
    assert small.memory.peak_allocated_bytes < large.memory.peak_allocated_bytes
    assert small.memory.parameters_bytes == large.memory.parameters_bytes


def test_expert_parallel_ranks_hold_the_whole_model_together() -> None:
    alone = report(plan__ranks=1).memory
    shared = report(plan__ranks=8, plan__ep=8).memory
    expert = {row.component: row.parameters_bytes for row in alone.components}["experts"]
    shard = {row.component: row.parameters_bytes for row in shared.components}["experts"]
    assert shard * 8 == expert
    assert shared.parameters_bytes - shard == alone.parameters_bytes - expert


def test_one_rank_talks_to_nobody() -> None:
    answer = report(plan__ranks=1)
    assert answer.communication == []
    assert answer.time.exposed_communication_s == 0
    assert answer.bottleneck_link is None


def test_gradients_overlap_with_backward_unless_told_otherwise() -> None:
    together = report("llama-3-8b", plan__ranks=16)
    apart = report("llama-3-8b", plan__ranks=16, plan__overlap_gradient_sync=False)
    assert together.time.step_s < apart.time.step_s
    assert apart.time.exposed_communication_s == pytest.approx(apart.time.communication_s, rel=1e-6)


def test_accumulation_communicates_gradients_once() -> None:
    once, four = report(plan__global_batch=256), report(plan__global_batch=1024)
    calls = [sum(row.calls for row in answer.communication if row.component == "gradient_sync") for answer in (once, four)]
    assert calls[0] == calls[1]
    dispatched = [sum(row.calls for row in answer.communication if row.component == "dispatch") for answer in (once, four)]
    assert dispatched[1] == 4 * dispatched[0]


def test_tokens_per_second_is_of_the_whole_job() -> None:
    answer = report()
    assert answer.throughput.tokens_per_s == pytest.approx(16 * 16 * 128 / answer.time.step_s)


def test_a_model_that_does_not_fit_says_so() -> None:
    answer = report("mixtral-8x7b", plan__ranks=1)
    assert answer.fits is False
    assert answer.memory.peak_allocated_bytes > 80e9


def test_adam_is_twice_the_weights_and_its_counters() -> None:
    memory = report(device="cpu", fabric="single-node", plan__ranks=1, plan__precision="fp32").memory
    tensors = 1 + 4 * 10 + 1
    assert memory.optimizer_bytes == 2 * memory.parameters_bytes + 4 * tensors


@pytest.mark.parametrize("name", FABRICS.names())
def test_the_device_of_every_fabric_preset_is_there(name: str) -> None:
    assert load_spec(name).device in DEVICES.names()


@pytest.mark.parametrize("name", DEVICES.names())
def test_every_device_preset_prices_every_kind(name: str) -> None:
    assert set(DEVICES.load(name).kernels) >= set(PRICED_KINDS)


def test_sharding_needs_less() -> None:
    whole, sharded = (ask("mixtral-8x7b", "spine-leaf", settings={"plan": {"tp": 2, "zero_stage": stage}}).answer() for stage in (0, 3))
    assert sharded.memory.peak_allocated_bytes < whole.memory.peak_allocated_bytes


def test_split_weights_keep_ten_bytes_in_the_optimizer() -> None:
    report = ask("moe-s1", "two-h200", "fast", gpus=1).answer()
    assert 10 * report.parameters < report.memory.optimizer_bytes < 10.001 * report.parameters


@pytest.mark.parametrize(("launch", "others"), [("eager", {"_foreach_add_": 1, "full": 2}), ("graph", {"_foreach_add_": 1, "_to_copy": 1})])
def test_split_weights_are_updated_by_one_launch_for_each_weight_decay_group(launch: str, others: dict[str, int]) -> None:
    question = ask("moe-s1", "two-h200", "fast", gpus=1, settings={"plan": {"gradient_clipping": None, "implementation.launch": launch}})
    launches: Counter[str] = Counter()
    traffic = 0.0
    for stretch in build_program(question.model, question.plan).optimizer:
        for operation in stretch.operations:
            launches[operation.name] += stretch.count * round(operation.launches.at(stretch.bindings))
            traffic += stretch.count * sum(value.bytes.at(stretch.bindings) for value in operation.traffic)
    assert launches == {"split_adamw": 2} | others
    # Parameter, remainder and two fp32 moments are read and written, the gradient is read.
    assert traffic == (2 * (2 + 2 + 4 + 4) + 2) * question.answer().parameters


@pytest.mark.parametrize(
    ("device", "held_bytes"), [("a100-sxm-80gb", (2 * 4096 + 8 * 16) * 2**10), ("h100-sxm-80gb", 32 * 2**20), ("b200-sxm-180gb", 32 * 2**20)]
)
def test_work_spaces_of_matrix_products_are_temporaries_of_two_threads(device: str, held_bytes: int) -> None:
    question = ask("tiny-moe", "single-node", device=device, gpus=1)
    without = replace(question, device=question.device.model_copy(update={"matrix_workspace_bytes": None})).answer().memory
    held = question.answer().memory
    assert held.peak_allocated_bytes - without.peak_allocated_bytes == held.at_peak[Role.TEMPORARY] - without.at_peak[Role.TEMPORARY] == 2 * held_bytes


def test_batched_experts_do_the_products_of_grouped_ones_at_the_rate_of_a_gemm() -> None:
    settings: dict[str, dict[str, object]] = {"model": {"blocks.0.feed_forward.capacity_factor": 1.25}}
    questions = {
        name: ask("tiny-moe", "single-node", device="cpu", gpus=1, settings=settings | {"plan": {"implementation.experts": name}})
        for name in ("grouped", "batched")
    }
    device = questions["batched"].device
    rows = {name: [row for row in question.answer().time.rows if row.component is Component.EXPERTS] for name, question in questions.items()}
    flops = {name: sum(row.flops for row in found) for name, found in rows.items()}
    # Four layers; three products, each and its two gradients; 8 experts of 1.25 x 16 x 128 x 2 / 8 rows on 128 x 128.
    tokens = questions["batched"].plan.tokens_per_micro_batch
    assert flops["batched"] == flops["grouped"] == 4 * 3 * 3 * 2 * (1.25 * tokens * 2) * 128 * 128
    (forward,) = (row for row in rows["batched"] if row.phase is Phase.FORWARD)
    gemm = device.kernels["gemm"]
    work_s = forward.flops / gemm.flops_per_s["fp32"].value + forward.traffic_bytes / gemm.bytes_per_s.value
    assert forward.time_s == pytest.approx(4 * 3 * device.launch_overhead_s.value + work_s)
