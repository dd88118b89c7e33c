"""Which parallel group uses which tier, what share of the step it exposes, and what other fabrics would change."""

import pytest

from simulator.network_explanation import NetworkExplanation, explain_network
from simulator.question import Question, ask

OLMOE = ("olmoe-1b-7b", "spine-leaf")
RAILS = ("mixtral-8x7b", "dgx-h100-superpod-1")


def explained(question: Question, *, worst_failure: bool = False) -> NetworkExplanation:
    return explain_network(question, worst_failure=worst_failure)


@pytest.mark.parametrize("names", [OLMOE, RAILS, ("llama-3-8b", "spine-leaf")])
def test_exposed_shares_of_the_groups_add_up_to_the_step_s(names: tuple[str, str]) -> None:
    question = ask(*names)
    found, time = explained(question), question.answer().time
    assert sum(use.exposed_s for use in found.groups) == pytest.approx(time.exposed_communication_s)
    assert sum(use.exposed_share for use in found.groups) == pytest.approx(time.exposed_communication_s / time.step_s)
    assert sum(use.time_s for use in found.groups) == pytest.approx(time.communication_s)


def test_tiers_by_hand() -> None:
    # All 16 ranks exchange: a host link carries 15 messages, each of a leaf's two uplinks 4 x 12 / 2 = 24.
    expert, data, *_ = explained(ask(*OLMOE)).groups
    assert (expert.group, expert.ranks, expert.layout) == ("expert parallel", 16, "neighbours")
    assert expert.tiers == pytest.approx({"leaf": 15 / 24, "spine": 1.0})
    # A ring in leaf order enters and leaves a leaf once, split over two uplinks: half of what a host's link carries.
    assert data.group == "data parallel"


def test_experts_inside_a_node_stay_on_nvlink_and_their_replicas_on_a_rail() -> None:
    uses = {use.group: use for use in explained(ask(*RAILS)).groups}
    assert set(uses["expert parallel"].tiers) == {"nvlink"}
    replicas = uses["data parallel of experts"]
    assert (replicas.groups, replicas.ranks, replicas.layout) == (8, 32, "every 8th rank")
    assert set(replicas.tiers) == {"leaf"}


def test_an_uneven_load_shows_where_it_is_hot() -> None:
    even, uneven = (explained(ask(*OLMOE, load=load)).groups[0] for load in ("uniform", "worst"))
    assert even.tiers["leaf"] < even.tiers["spine"]
    assert uneven.tiers["leaf"] == pytest.approx(1)


def test_what_if_is_what_is_predicted_there() -> None:
    changes = {change.name: change for change in explained(ask(*OLMOE)).what_if}
    doubled = ask(*OLMOE, settings={"fabric": {"uplink_bytes_per_s": 100e9}}).answer()
    assert changes["spine links doubled"].step_s == pytest.approx(doubled.time.step_s)
    assert changes["spine0 lost"].step_s == pytest.approx(ask(*OLMOE, fail=("spine0",)).answer().time.step_s)
    confined = ask(*OLMOE, settings={"plan": {"ep": 4}}).answer()
    assert changes["expert parallelism confined to a leaf (ep 4)"].step_s == pytest.approx(confined.time.step_s)
    later = ask(*OLMOE, settings={"fabric": {"hop_latency_s": 1.5e-6}}).answer()
    assert changes["1 µs more per hop"].step_s == pytest.approx(later.time.step_s)


def test_slices_of_experts_are_confined_with_them() -> None:
    sliced = {"plan": {"ep": 8, "etp": 2}}
    changes = {change.name: change for change in explained(ask(*OLMOE, settings=sliced)).what_if}
    # 4 ranks hang on a leaf: 2 ranks with different experts, each in 2 slices.
    confined = ask(*OLMOE, settings={"plan": {"ep": 2, "etp": 2}}).answer()
    assert changes["expert parallelism confined to a leaf (ep 2)"].step_s == pytest.approx(confined.time.step_s)


def test_faults_stay_while_something_else_changes() -> None:
    degraded = explained(ask(*OLMOE, slow=("leaf0:spine0=0.5",)))
    changes = {change.name: change.step_s for change in degraded.what_if}
    assert changes["spine links doubled"] > {change.name: change.step_s for change in explained(ask(*OLMOE)).what_if}["spine links doubled"]


def test_the_worst_failure_is_the_prediction_without_it() -> None:
    found = explained(ask(*OLMOE), worst_failure=True)
    assert found.failures is not None
    assert len(found.failures) == 10
    worst = found.failures[0]
    after = ask(*OLMOE, fail=(worst.name,)).answer().time
    assert (worst.step_s, worst.exposed_s) == pytest.approx((after.step_s, after.exposed_communication_s))
    assert explained(ask(*OLMOE)).failures is None
