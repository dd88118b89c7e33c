"""Every plan gives the gradients and losses of one process that sees the same micro-batches."""

import pytest

PLANS = {
    "data": {"ranks": 2, "ep": 1},
    "data, small buckets": {"ranks": 2, "ep": 1, "gradient_bucket_bytes": 4096},
    "data, no overlap": {"ranks": 2, "ep": 1, "overlap_gradient_sync": False},
    "expert": {"ranks": 2, "ep": 2},
    "expert-tensor": {"ranks": 2, "ep": 1, "etp": 2},
    "tensor": {"ranks": 2, "ep": 1, "tp": 2},
    "tensor, expert": {"ranks": 2, "ep": 2, "tp": 2},
    "tensor, expert-tensor": {"ranks": 2, "ep": 1, "tp": 2, "etp": 2},
    "zero-2": {"ranks": 2, "ep": 1, "zero_stage": 2},
    "zero-3": {"ranks": 2, "ep": 1, "zero_stage": 3},
    "zero-3, expert": {"ranks": 2, "ep": 2, "zero_stage": 3},
    "zero-3, tensor": {"ranks": 2, "ep": 1, "tp": 2, "zero_stage": 3},
    "gpipe": {"ranks": 2, "ep": 1, "pp": 2, "schedule": "gpipe"},
    "1f1b": {"ranks": 2, "ep": 1, "pp": 2},
    "interleaved": {"ranks": 2, "ep": 1, "pp": 2, "schedule": "interleaved", "virtual_stages": 2},
}
PLANS_OF_FOUR = {
    "expert x data": {"ranks": 4, "ep": 2},
    "expert x zero-3": {"ranks": 4, "ep": 2, "zero_stage": 3},
    "tensor x zero-3": {"ranks": 4, "ep": 2, "tp": 2, "zero_stage": 3},
    "hybrid x expert": {"ranks": 4, "ep": 2, "zero_stage": 3, "replicas": 2},
    "expert x expert-tensor": {"ranks": 4, "ep": 2, "etp": 2},
}


def global_batch(plan, accumulation=2):
    return 2 * accumulation * plan["ranks"] // plan.get("tp", 1) // plan.get("pp", 1)


def relative(found, expected):
    assert found.keys() == expected.keys()
    return {name: float((found[name] - expected[name]).norm() / expected[name].norm().clamp(min=1e-30)) for name in expected}


def check(ranks, plan, **case):
    plan = plan | {"global_batch": global_batch(plan)}
    alone = {key: plan[key] for key in ("global_batch",)} | {"ranks": 1}
    (expected,) = ranks(1).run(run="train", plan=alone, **case)
    answers = ranks(plan["ranks"]).run(run="train", plan=plan, **case)
    return expected, answers


@pytest.mark.parametrize("name", PLANS)
def test_first_gradients_in_fp32(ranks, name):
    expected, answers = check(ranks, PLANS[name])
    for answer in answers:
        worst = relative(answer["gradients"], expected["gradients"])
        assert max(worst.values()) <= 1e-5, worst
        assert answer["norms"] == pytest.approx(expected["norms"], rel=1e-5)
        if "pp" not in PLANS[name]:
            assert answer["counts"] == expected["counts"]


@pytest.mark.parametrize("name", PLANS)
def test_three_steps_in_fp64(ranks, name):
    expected, answers = check(ranks, PLANS[name], steps=3, double=True)
    for answer in answers:
        worst = relative(answer["gradients"], expected["gradients"])
        assert max(worst.values()) <= 1e-10, worst
        worst = relative(answer["parameters"], expected["parameters"])
        assert max(worst.values()) <= 1e-10, worst
