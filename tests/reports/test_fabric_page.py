"""The fabric page turns one parameter at a time and finds where the network takes over."""

from itertools import pairwise

import pytest

from configuration.errors import ConfigurationError
from reports.fabric.build import build
from reports.fabric.knobs import KNOBS
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


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.field)
def test_a_parameter_turned_the_bad_way_never_makes_the_step_faster(mixtral: Study, knob: object) -> None:
    turn = _turn(mixtral, knob.field)
    times = [report.time.step_s for report in turn.reports]
    ordered = times if turn.knob.more_is_worse else times[::-1]
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in pairwise(ordered))


def test_what_if_agrees_with_a_prediction(mixtral: Study) -> None:
    faster = ask("mixtral-8x7b", "spine-leaf", settings={"fabric": {"link_bytes_per_s": 100e9}}).answer().time.step_s
    assert mixtral.what_if["links of twice the rate"] == faster
    assert change(mixtral, "links of twice the rate") == f"{faster / mixtral.report.time.step_s - 1:+.0%}"


def test_a_model_that_does_not_fit_is_said_to_not_fit(mixtral: Study) -> None:
    assert mixtral.report.fits is False
    assert "It does not fit" in verdict(mixtral)


def test_parameters_that_a_fabric_lacks_are_left_out_and_named() -> None:
    page = build(["tiny-moe"], "single-node", {})
    assert [picture.name for picture in page.pictures] == ["tiers", "exposed_share", "step_time_hop_latency_s", "step_time_link_bytes_per_s"]
    together = next(section for section in page.sections if section.title == "All models together")
    assert any(text.startswith("leaf oversubscription:") for text in together.paragraphs)


def test_a_setting_changes_all_predictions() -> None:
    page = build(["tiny-moe"], "single-node", {"plan": {"micro_batch": 4}})
    assert "4 × 128 tokens" in page.subject


def test_the_same_model_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--models: expected different models"):
        build(["tiny-moe", "tiny-moe"], "spine-leaf", {})
