"""The fabric page turns one parameter at a time and finds where the network takes over."""

from itertools import pairwise

import pytest

from configuration.errors import ConfigurationError
from reports.fabric.build import build
from reports.fabric.knobs import EXPERTS, KNOBS, NODE, OVERSUBSCRIPTION, RATE, SEQUENCE
from reports.fabric.maps import region_map
from reports.fabric.turning import Study, Turn, network_bound, study
from reports.fabric.verdicts import change, verdict
from simulator.question import ask


@pytest.fixture(scope="module")
def mixtral() -> Study:
    return study("mixtral-8x7b", "spine-leaf", {})


def _turn(of: Study, field: str) -> Turn:
    return next(turn for turn in of.turns if turn.knob.field == field)


def test_every_parameter_of_a_spine_leaf_network_is_turned(mixtral: Study) -> None:
    assert [turn.knob for turn in mixtral.turns] == list(KNOBS)
    assert mixtral.left_out == ()


def test_the_fabric_as_it_is_is_one_of_the_values(mixtral: Study) -> None:
    turn = _turn(mixtral, "oversubscription")
    assert turn.now == 2.0  # 4 hosts × 50 GB/s under 2 spines × 50 GB/s
    assert turn.reports[turn.values.index(2.0)].time == mixtral.report.time


def test_the_step_is_network_bound_at_the_crossing_and_not_just_before(mixtral: Study) -> None:
    crossing = _turn(mixtral, "oversubscription").crossing
    assert crossing is not None
    at, before = (ask("mixtral-8x7b", "spine-leaf", settings={"fabric": {"oversubscription": value}}).answer() for value in (crossing, crossing * 0.99))
    assert network_bound(at)
    assert not network_bound(before)


def test_less_link_rate_is_what_makes_a_step_network_bound(mixtral: Study) -> None:
    turn = _turn(mixtral, "link_bytes_per_s")
    assert turn.crossing is not None
    assert [network_bound(report) for value, report in zip(turn.values, turn.reports, strict=True)] == [value <= turn.crossing for value in turn.values]


@pytest.mark.parametrize("knob", [knob for knob in KNOBS if knob.monotone], ids=lambda knob: knob.field)
def test_a_parameter_turned_the_bad_way_never_makes_the_step_faster(mixtral: Study, knob: object) -> None:
    turn = _turn(mixtral, knob.field)
    times = [report.time.step_s for report in turn.reports]
    ordered = times if turn.knob.more_is_worse else times[::-1]
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in pairwise(ordered))


def test_what_if_agrees_with_a_prediction(mixtral: Study) -> None:
    faster = ask("mixtral-8x7b", "spine-leaf", settings={"fabric": {"uplink_bytes_per_s": 100e9}}).answer().time.step_s
    assert change(mixtral, "spine links doubled") == f"{faster / mixtral.report.time.step_s - 1:+.0%}"
    assert change(mixtral, "no such change") == "–"


def test_more_accelerators_in_a_node_leave_the_network_as_it_is(mixtral: Study) -> None:
    turn = _turn(mixtral, "accelerators_per_node")
    assert turn.values == (1, 2, 4)  # what 4 accelerators on a leaf can be cut into
    fabric = {"accelerators_per_node": 4, "hosts_per_leaf": 1, "scale_up_bytes_per_s": 450e9}
    assert NODE.change(mixtral.question.network.fabric, 4) == {"fabric": fabric}
    assert turn.reports[-1].time == ask("mixtral-8x7b", "spine-leaf", settings={"fabric": fabric}).answer().time


def test_expert_parallel_degrees_are_those_that_divide(mixtral: Study) -> None:
    turn = _turn(mixtral, "ep")
    assert turn.values == (1, 2, 4, 8)
    assert turn.reports[1].time == ask("mixtral-8x7b", "spine-leaf", settings={"plan": {"ep": 2}}).answer().time
    assert EXPERTS.now(ask("llama-3-8b", "spine-leaf")) is None


def test_a_map_holds_what_is_predicted_there(mixtral: Study) -> None:
    drawn = region_map(mixtral, RATE, OVERSUBSCRIPTION)
    assert drawn is not None
    assert drawn.now == (50e9, 2.0)
    settings = {"fabric": {"link_bytes_per_s": drawn.x[8], "oversubscription": drawn.y[2]}}
    assert drawn.bound[2][8] == ask("mixtral-8x7b", "spine-leaf", settings=settings).answer().bottleneck
    # Along a row network-bound ends where links are quick enough, and more oversubscription moves that to quicker links.
    ends = [sum(name == "network-bound" for name in row) for row in drawn.bound]
    assert ends == sorted(ends)
    assert all(set(row[:end]) <= {"network-bound"} for row, end in zip(drawn.bound, ends, strict=True))
    assert drawn.told(2).startswith("below ")
    assert drawn.told(len(drawn.y) - 1) == "network-bound throughout"


def test_a_map_is_empty_where_a_model_cannot_go() -> None:
    tiny = study("tiny-moe", "single-node", {})
    drawn = region_map(tiny, RATE, SEQUENCE)
    assert drawn is not None
    assert set(drawn.bound[-1]) == {""}  # more tokens than tiny-moe has positions
    assert region_map(tiny, RATE, OVERSUBSCRIPTION) is None


def test_the_page_says_which_group_waits_and_over_which_tier(mixtral: Study) -> None:
    assert "Most of it waits for groups of 2 (data parallel of experts" in verdict(mixtral)
    assert "compute-bound before" in verdict(mixtral)


def test_a_model_that_does_not_fit_is_said_to_not_fit(mixtral: Study) -> None:
    assert mixtral.report.fits is False
    assert "It does not fit" in verdict(mixtral)


def test_parameters_that_a_fabric_lacks_are_left_out_and_named() -> None:
    page = build(["tiny-moe"], "single-node", {})
    names = [picture.name for picture in page.pictures]
    assert names[:2] == ["tiers", "what_if"]
    assert names[2:5] == ["regions_link_bytes_per_s_sequence", "regions_link_bytes_per_s_hop_latency_s", "exposed_share"]
    assert names[5:] == ["step_time_hop_latency_s", "step_time_link_bytes_per_s", "step_time_ep"]
    together = next(section for section in page.sections if section.title == "All models together")
    assert any(text.startswith("leaf oversubscription:") for text in together.paragraphs)


def test_a_setting_changes_all_predictions() -> None:
    page = build(["tiny-moe"], "single-node", {"plan": {"micro_batch": 4}})
    assert "4 × 128 tokens" in page.subject


def test_the_same_model_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--models: expected different models"):
        build(["tiny-moe", "tiny-moe"], "spine-leaf", {})
    with pytest.raises(ConfigurationError, match="--models: 7 models; a figure tells at most 6 apart"):
        build([f"model{number}" for number in range(7)], "spine-leaf", {})
