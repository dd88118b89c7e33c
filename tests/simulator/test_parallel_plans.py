"""Plans of many ranks: what one rank holds, what the ranks say to each other, and what a pipeline waits for."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.components import Component, Phase, Role
from simulator.explanation import explain, lines
from simulator.memory.step import step_memory
from simulator.network_explanation import explain_network
from simulator.program.build import build_program
from simulator.program.rewrites import layout
from simulator.program.rewrites.pipeline import actions, in_order, makespan_s, uniform_makespan_s
from simulator.question import ask
from simulator.records.step_report import Memory, StepReport
from simulator.specs import ModelSpec, Plan, load_model, load_plan

SMALL = {"width": 64, "vocabulary": 512, "blocks.0.count": 4, "blocks.0.feed_forward.experts": 8, "blocks.0.feed_forward.expert_width": 64}


def resolved(ranks: int, **fields: object) -> tuple[ModelSpec, Plan]:
    model = load_model("tiny-moe", SMALL)
    plan, _ = load_plan(model, None, {"sequence": 32, "micro_batch": 2, "ranks": ranks, "ep": 1, "precision": "fp32"} | fields)
    plan.check_against(model)
    return model, plan


def memory(ranks: int, stage: int = 0, **fields: object) -> Memory:
    model, plan = resolved(ranks, **fields)
    return step_memory(build_program(model, plan, stage=stage), plan)


def gathered_parameters(predicted: Memory) -> int:
    return predicted.parameters_bytes + predicted.at_peak[Role.COMMUNICATION]


PLANS = st.fixed_dictionaries({"ep": st.sampled_from([1, 2, 4]), "tp": st.sampled_from([1, 2]), "zero_stage": st.sampled_from([0, 2, 3])})


@given(PLANS)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_shards_of_all_ranks_add_up_to_the_whole(fields: dict[str, int]) -> None:
    """Width, vocabulary and experts divide by all degrees here, so no shard is padded; what several ranks hold is counted once."""
    ranks = 8
    model, plan = resolved(ranks, **fields)
    item = 4
    total = 0
    for row in step_memory(build_program(model, plan), plan).components:
        share = layout.share_of(row.component)
        sizes = layout.cut(plan, share)
        copies = sizes[layout.REPLICA] * (1 if plan.zero_stage else sizes[layout.SHARD])
        total += row.parameters_bytes * ranks // copies
    assert total == item * model.parameters


@given(st.sampled_from([2, 4, 8]), st.sampled_from([1, 2]), st.sampled_from([1, 2]), st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_zero_3_never_holds_more_than_zero_2_nor_that_more_than_none(ranks: int, ep: int, tp: int, passes: int) -> None:
    fields = {"ep": ep, "tp": tp, "global_batch": 2 * passes * ranks // tp}
    none, two, three = (memory(ranks, **fields, zero_stage=stage) for stage in (0, 2, 3))
    assert three.parameters_bytes == two.parameters_bytes <= none.parameters_bytes
    assert two.optimizer_bytes <= none.optimizer_bytes
    assert gathered_parameters(three) <= gathered_parameters(two)


@given(st.sampled_from([0, 2, 3]), st.sampled_from([1, 2]))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_more_ranks_never_hold_more_states_each(stage: int, ep: int) -> None:
    sizes = [memory(ranks, zero_stage=stage, ep=ep).optimizer_bytes for ranks in (2, 4, 8, 16)]
    assert sizes == sorted(sizes, reverse=True)


@given(st.sampled_from([(2, 1), (2, 2), (4, 1), (4, 2)]))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_more_slices_hold_less(degrees: tuple[int, int]) -> None:
    tp, etp = degrees
    assert memory(4, tp=tp, etp=etp).parameters_bytes < memory(4, tp=tp // 2, etp=max(1, etp // 2)).parameters_bytes


SCHEDULES = st.sampled_from([("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 3)])


@st.composite
def pipelines(draw: st.DrawFn) -> Plan:
    schedule, virtual = draw(SCHEDULES)
    pp = draw(st.integers(2, 6))
    count = draw(st.integers(1, 12)) if schedule == "gpipe" else pp * draw(st.integers(1, 4)) + (draw(st.integers(0, 3)) if schedule == "1f1b" else 0)
    return Plan(ranks=pp, sequence=8, micro_batch=1, global_batch=count, pp=pp, schedule=schedule, virtual_stages=virtual)


@given(pipelines(), st.floats(0.1, 10), st.floats(0.1, 10))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_closed_form_equals_the_schedule_event_by_event(plan: Plan, forward_s: float, backward_s: float) -> None:
    assert makespan_s(plan, forward_s, backward_s, 0.0) == pytest.approx(uniform_makespan_s(plan, forward_s, backward_s), rel=1e-9)


@given(pipelines())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_stage_runs_every_pass_once_and_waits_for_nothing_that_comes_later(plan: Plan) -> None:
    order = list(in_order(plan))
    assert len(order) == len(set(order)) == 2 * plan.pp * plan.virtual_stages * plan.accumulation
    for stage in range(plan.pp):
        assert [action for number, action in order if number == stage] == actions(plan, stage)


@given(pipelines(), st.floats(0.0, 3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_slower_wire_never_ends_a_pipeline_earlier(plan: Plan, transfer_s: float) -> None:
    assert makespan_s(plan, 1.0, 2.0, transfer_s) >= makespan_s(plan, 1.0, 2.0, 0.0)


def test_gpipe_with_transfers_by_hand() -> None:
    """Two stages, three micro-batches: 1 + 0.5 + 3 x 1, then 3 x 2, the last of which takes 0.5 to the first stage for 2 more."""
    plan = Plan(ranks=2, sequence=8, micro_batch=1, global_batch=3, pp=2, schedule="gpipe")
    assert makespan_s(plan, 1.0, 2.0, 0.5) == pytest.approx(1 + 0.5 + 3 + 6 + 0.5 + 2)


def without_inputs(predicted: Memory) -> int:
    """Activations but for the ids and labels of all micro-batches, which every stage has."""
    return sum(row.activations_bytes for row in predicted.components if row.component is not Component.INPUTS)


def test_1f1b_holds_as_many_micro_batches_as_stages_follow() -> None:
    fields = {"pp": 4, "global_batch": 16}
    held = [without_inputs(memory(4, stage, **fields)) for stage in range(4)]
    everything = without_inputs(memory(4, 1, **fields, schedule="gpipe"))
    assert everything == 8 * held[1] / 3
    assert held[1] / held[2] == 3 / 2


def test_stages_hold_all_parameters_between_them() -> None:
    model, _ = resolved(4, pp=4, global_batch=8)
    stages = [memory(4, stage, pp=4, global_batch=8).parameters_bytes for stage in range(4)]
    tied = 4 * model.vocabulary * model.width
    assert sum(stages) == 4 * model.parameters + tied


def answer(**fields: object) -> StepReport:
    return ask("olmoe-1b-7b", "spine-leaf", settings={"plan": fields}).answer()


EVERY_PLAN = {
    "expert": {"ep": 4},
    "expert x expert-tensor": {"ep": 4, "etp": 2},
    "zero-2": {"ep": 4, "zero_stage": 2},
    "zero-3": {"ep": 4, "zero_stage": 3},
    "hybrid x expert": {"ep": 2, "zero_stage": 3, "replicas": 2},
    "pipeline x expert": {"pp": 4, "ep": 4, "global_batch": 32},
    "interleaved": {"pp": 2, "ep": 8, "virtual_stages": 2, "schedule": "interleaved", "global_batch": 32},
}


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_parts_add_up_and_no_collective_is_exposed_for_longer_than_it_takes(name: str) -> None:
    report = answer(**EVERY_PLAN[name])
    time = report.time
    parts = time.forward_s + time.backward_s + time.optimizer_s + time.exposed_communication_s + time.bubble_s + time.other_s
    assert parts == pytest.approx(time.step_s, rel=1e-9)
    assert sum(report.memory.at_peak.values()) == pytest.approx(report.memory.peak_allocated_bytes, abs=8)
    for row in report.communication:
        assert row.exposed_s <= row.time_s * (1 + 1e-9)


EXPLAINED = {
    "accumulation": ({"ep": 8, "global_batch": 512}, {}),
    "eager norms in 16 bits": ({"ep": 8, "implementation.norm": "eager"}, {}),
    "split weights": ({"ranks": 1, "precision": "bf16-split"}, {}),
    "tensor": ({"ep": 4, "tp": 2, "global_batch": 256}, {}),
    "expert-tensor under an uneven load": ({"ep": 4, "etp": 2}, {"load": {"kind": "zipf"}}),
    "zero-3, recomputed": ({"ep": 4, "zero_stage": 3, "recomputation": "full"}, {}),
    "hybrid, chunked": ({"ep": 2, "zero_stage": 2, "replicas": 2, "implementation.cross_entropy": "chunked"}, {}),
    "pipeline, selection bias": ({"pp": 4, "ep": 4, "global_batch": 256}, {"model": {"blocks.0.feed_forward.selection_bias": True}}),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_line_can_be_explained_and_its_terms_add_up(name: str) -> None:
    plan, more = EXPLAINED[name]
    question = ask("tiny-moe", "spine-leaf", settings={"plan": plan, **more})
    report = question.answer()
    owned = {row.component: row for row in report.memory.components}
    spent = {(row.phase, row.component): row.time_s for row in report.time.rows}
    for line in lines(report):
        if line == "network":
            continue
        found = explain(question, line)
        assert sum(term.value for term in found.terms) == pytest.approx(found.total, rel=1e-9, abs=8)
        section, part, *rest = line.split(".")
        if section == "memory" and part != "peak":
            assert found.total == getattr(owned[Component(rest[0])] if rest else report.memory, f"{part}_bytes"), line
            symbols = set(re.findall(r"\b[A-Zegpstz]\b", " ".join(term.formula for term in found.terms)))
            assert symbols <= set(found.symbols), line
        elif section == "time":
            expected = spent[Phase(part), Component(rest[0])] if rest else getattr(report.time, f"{part}_s")
            assert found.total == pytest.approx(expected, rel=1e-9), line


def test_what_stands_in_is_told_wherever_it_is_predicted() -> None:
    question = ask("moe-s1", "two-h200", "fast", gpus=1)
    notes = question.answer().provenance.notes
    assert any("assumed" in note for note in notes)
    assert set(notes) <= set(explain(question, "memory.activations").remarks)
    assert explain_network(question).notes == notes


def test_a_pipeline_has_a_row_for_each_stage_and_the_fullest_is_the_report() -> None:
    report = answer(pp=4, ep=4, global_batch=32)
    assert [row.rank for row in report.ranks] == [0, 4, 8, 12]
    assert report.memory.peak_allocated_bytes == max(row.memory.peak_allocated_bytes for row in report.ranks)
    assert len({round(row.time.step_s, 9) for row in report.ranks}) == 1
    assert report.time.bubble_s > 0


def test_gathers_are_mostly_hidden_by_a_long_computation() -> None:
    report = ask("olmoe-1b-7b", "single-node", settings={"plan": {"zero_stage": 3, "ep": 1, "micro_batch": 8}}).answer()
    gathers = [row for row in report.communication if row.component is Component.PARAMETER_GATHER]
    assert sum(row.exposed_s for row in gathers) < sum(row.time_s for row in gathers) / 2


@given(st.sampled_from([1, 2]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([0, 3]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_group_name_cuts_all_ranks_once(tp: int, pp: int, ep: int, replicas: int, stage: int) -> None:
    assume(not (pp > 1 and stage) and (replicas == 1 or stage))
    _, plan = resolved(16, tp=tp, pp=pp, ep=ep, replicas=replicas, zero_stage=stage, global_batch=2 * (16 // pp // tp) * pp)
    for name in layout.GROUPS:
        assert sorted(rank for group in layout.groups(plan, name) for rank in group) == list(range(16))


def test_each_gathering_and_each_reduction_takes_a_host_that_is_behind_one_hook_longer() -> None:
    def step_s(hook_s: float, **plan: object) -> float:
        settings = {"plan": {"ep": 1, "zero_stage": 3} | plan, "device": {"hook_overhead_s.value": hook_s}}
        return ask("tiny-moe", "two-h200", gpus=2, settings=settings).answer().time.step_s

    layers = load_model("tiny-moe").layers
    together, apart = (step_s(0.02, **plan) - step_s(0.01, **plan) for plan in ({}, {"recomputation": ("experts",)}))
    # Matrices, norms with router; the final norm; embedding with head. Each is gathered twice and reduced once.
    assert together == pytest.approx(0.01 * 3 * (2 * layers + 2))
    # What is recomputed keeps experts and projections apart.
    assert apart == pytest.approx(0.01 * 3 * (3 * layers + 2))
