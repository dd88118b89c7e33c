"""Who waits for whom: one rank is late with every micro-batch."""

import pytest

BY_S = 0.06
"""Far beyond what collectives of some kB take; in every plan here the late rank sleeps at least once in a micro-batch."""

PLANS = {
    "expert": {"ranks": 2, "ep": 2},
    "data": {"ranks": 2, "ep": 1},
    "zero-3": {"ranks": 2, "ep": 1, "zero_stage": 3},
    "tensor": {"ranks": 2, "ep": 1, "tp": 2},
}


def late(ranks, plan, rank):
    return ranks(2).run(run="late", plan=plan, late=rank, by_s=BY_S)


def waited(answer):
    return sum(row["waiting_s"] for row in answer["rows"])


@pytest.mark.parametrize("name", PLANS)
def test_the_punctual_rank_waits_for_the_late_one_and_no_collective_seems_longer(ranks, name):
    answers = late(ranks, PLANS[name], rank=1)
    assert waited(answers[0]) > BY_S
    assert waited(answers[1]) < waited(answers[0]) / 2
    # Sleep is not the network's: without the waits both ranks see collectives that are over at once.
    assert sum(row["time_s"] for row in answers[0]["rows"]) < waited(answers[0])
    for row in answers[0]["rows"]:
        assert row["waiting_s"] <= row["exposed_s"]


@pytest.mark.parametrize("schedule", [{"schedule": "1f1b"}, {"schedule": "gpipe"}, {"schedule": "interleaved", "virtual_stages": 2}])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_waits_in_the_bubble_for_the_one_that_is_late(ranks, schedule, stage):
    answers = late(ranks, {"ranks": 2, "ep": 1, "pp": 2, "global_batch": 8, **schedule}, rank=stage)
    # The late stage sleeps with each of four micro-batches, and the other one has less than that to do.
    assert answers[1 - stage]["bubble_s"] > BY_S
    assert answers[stage]["bubble_s"] < answers[1 - stage]["bubble_s"] / 2
    assert answers[1 - stage]["exposed_s"] < answers[1 - stage]["bubble_s"]
