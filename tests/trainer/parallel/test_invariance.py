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
    "tensor, documents apart": {"ranks": 2, "ep": 1, "tp": 2, "attention_across_documents": False},
    "zero-2": {"ranks": 2, "ep": 1, "zero_stage": 2},
    "zero-3": {"ranks": 2, "ep": 1, "zero_stage": 3},
    "zero-3, expert": {"ranks": 2, "ep": 2, "zero_stage": 3},
    "zero-3, tensor": {"ranks": 2, "ep": 1, "tp": 2, "zero_stage": 3},
    "gpipe": {"ranks": 2, "ep": 1, "pp": 2, "schedule": "gpipe"},
    "1f1b": {"ranks": 2, "ep": 1, "pp": 2},
    "interleaved": {"ranks": 2, "ep": 1, "pp": 2, "schedule": "interleaved", "virtual_stages": 2},
}
RECOMPUTED = {
    "expert, recomputed": {"ranks": 2, "ep": 2, "recomputation": "full"},
    "expert, experts recomputed": {"ranks": 2, "ep": 2, "recomputation": ["attention", "experts"]},
    "tensor, expert, parts recomputed": {"ranks": 2, "ep": 2, "tp": 2, "recomputation": ["attention", "feed_forward"]},
    "zero-3, expert, experts recomputed": {"ranks": 2, "ep": 2, "zero_stage": 3, "recomputation": ["experts"]},
    "1f1b, recomputed": {"ranks": 2, "ep": 1, "pp": 2, "recomputation": "full"},
}
PLANS_OF_FOUR = {
    "expert x data": {"ranks": 4, "ep": 2},
    "expert x zero-3": {"ranks": 4, "ep": 2, "zero_stage": 3},
    "tensor x zero-3": {"ranks": 4, "ep": 2, "tp": 2, "zero_stage": 3},
    "hybrid x expert": {"ranks": 4, "ep": 2, "zero_stage": 3, "replicas": 2},
    "expert x expert-tensor": {"ranks": 4, "ep": 2, "etp": 2},
    "tensor x expert-tensor x data": {"ranks": 4, "ep": 1, "tp": 2, "etp": 2},
    "pipeline x expert": {"ranks": 4, "ep": 2, "pp": 2},
    "pipeline x tensor": {"ranks": 4, "ep": 2, "pp": 2, "tp": 2},
    "interleaved x data": {"ranks": 4, "ep": 1, "pp": 2, "schedule": "interleaved", "virtual_stages": 2},
}


def global_batch(plan, accumulation=2):
    return 2 * accumulation * plan["ranks"] // plan.get("tp", 1) // plan.get("pp", 1)


def relative(found, expected):
    assert found.keys() == expected.keys()
    return {name: float((found[name] - expected[name]).norm() / expected[name].norm().clamp(min=1e-30)) for name in expected}


def check(ranks, plan, **case):
    plan = plan | {"global_batch": global_batch(plan)}
    alone = {key: plan[key] for key in ("global_batch", "attention_across_documents") if key in plan} | {"ranks": 1}
    (expected,) = ranks(1).run(run="train", plan=alone, **case)
    answers = ranks(plan["ranks"]).run(run="train", plan=plan, **case)
    return expected, answers


ALL = PLANS | RECOMPUTED | PLANS_OF_FOUR
EACH = [pytest.param(name, marks=pytest.mark.slow if name in PLANS_OF_FOUR else ()) for name in ALL]


@pytest.mark.parametrize("name", EACH)
def test_first_gradients_in_fp32(ranks, name):
    expected, answers = check(ranks, ALL[name])
    for answer in answers:
        worst = relative(answer["gradients"], expected["gradients"])
        assert max(worst.values()) <= 1e-5, worst
        assert answer["norms"] == pytest.approx(expected["norms"], rel=1e-5)
        if "pp" not in ALL[name]:
            assert answer["counts"] == expected["counts"]


@pytest.mark.parametrize("name", EACH)
def test_three_steps_in_fp64(ranks, name):
    expected, answers = check(ranks, ALL[name], steps=3, double=True)
    for answer in answers:
        for kind in ("gradients", "parameters"):
            worst = relative(answer[kind], expected[kind])
            assert max(worst.values()) <= 1e-10, worst


QUICK = ("expert", "1f1b")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL])
def test_losses_of_twenty_steps(ranks, name):
    expected, answers = check(ranks, ALL[name], steps=20)
    assert answers[0]["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert len(answers[0]["losses"]) == 20


ROUTERS = {
    "sigmoid, bias, shared experts": {
        "router": "sigmoid",
        "selection_bias": True,
        "normalise_weights": True,
        "weight_scale": 2.5,
        "shared_width": 12,
        "top_k": 2,
    },
    "softmax, normalised": {"top_k": 2, "normalise_weights": True},
    "capacity": {"capacity_factor": 1.0, "top_k": 2},
}


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("name", ["expert", "expert-tensor", "zero-3, expert", "1f1b"])
def test_every_kind_of_routing(ranks, name, router):
    fields = {f"blocks.0.feed_forward.{field}": value for field, value in ROUTERS[router].items()}
    expected, answers = check(ranks, PLANS[name], steps=3, double=True, model=fields)
    for answer in answers:
        for kind in ("gradients", "parameters"):
            worst = relative(answer[kind], expected[kind])
            assert max(worst.values()) <= 1e-10, worst


BATCHED = {"implementation.experts": "batched"}
CAPACITY = {"blocks.0.feed_forward.capacity_factor": 1.0, "blocks.0.feed_forward.top_k": 2}


@pytest.mark.parametrize("name", ["expert", "expert-tensor", "zero-3, expert"])
def test_batched_experts_are_those_of_a_loop_in_one_process(ranks, name):
    expected, answers = check(ranks, PLANS[name] | BATCHED, steps=3, double=True, model=CAPACITY)
    for answer in answers:
        for kind in ("gradients", "parameters"):
            worst = relative(answer[kind], expected[kind])
            assert max(worst.values()) <= 1e-10, worst


@pytest.mark.parametrize("double", [True, False])
def test_validation_with_batched_experts_drops_nothing_on_several_ranks(ranks, double):
    plan = PLANS["expert"] | BATCHED | {"global_batch": global_batch(PLANS["expert"])}
    (expected,) = ranks(1).run(run="infer", double=double, plan={"ranks": 1}, model={"blocks.0.feed_forward.top_k": 2})
    for answer in ranks(2).run(run="infer", double=double, plan=plan, model=CAPACITY):
        assert answer["tokens"] == expected["tokens"]
        assert answer["loss"] == pytest.approx(expected["loss"], rel=1e-10 if double else 1e-5)


@pytest.mark.parametrize("name", ["expert", "expert-tensor", "zero-3, expert", "1f1b"])
def test_micro_batches_of_one_token(ranks, name):
    plan = PLANS[name] | {"sequence": 1, "micro_batch": 1, "global_batch": global_batch(PLANS[name]) // 2}
    (expected,) = ranks(1).run(run="train", double=True, plan={"ranks": 1, "sequence": 1, "micro_batch": 1, "global_batch": plan["global_batch"]})
    for answer in ranks(2).run(run="train", double=True, plan=plan):
        found, wanted = answer["gradients"], expected["gradients"]
        assert found.keys() == wanted.keys()
        assert all(float((found[name] - wanted[name]).norm()) <= 1e-10 * max(float(wanted[name].norm()), 1e-6) for name in wanted)
        assert answer["losses"] == pytest.approx(expected["losses"], rel=1e-10)


def test_global_scope_is_one_process_with_the_joint_micro_batch(ranks):
    scope = {"auxiliary_loss_scope": "global", "global_batch": 8}
    (joint,) = ranks(1).run(run="train", double=True, plan={"ranks": 1, "micro_batch": 4, "global_batch": 8})
    (apart,) = ranks(1).run(run="train", double=True, plan={"ranks": 1, "micro_batch": 2, "global_batch": 8})
    for ep in (1, 2):
        answer, _ = ranks(2).run(run="train", double=True, plan={"ranks": 2, "ep": ep, **scope})
        # Shares of experts are fp32 numbers.
        assert max(relative(answer["gradients"], joint["gradients"]).values()) <= 1e-6
        routers = [name for name in joint["gradients"] if "router" in name]
        assert min(relative(answer["gradients"], apart["gradients"])[name] for name in routers) > 1e-4


MASKS = {
    "uneven ranks": [{"every": 2, "at": 1, "from": 7}],
    "a rank without tokens": [{"every": 2, "at": 1, "from": 0}],
    "one token": [{"every": 4, "at": 0, "from": 1}, {"every": 4, "at": 1, "from": 0}, {"every": 4, "at": 2, "from": 0}, {"every": 4, "at": 3, "from": 0}],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", ["expert", "zero-3, expert", "tensor, expert", "1f1b"])
def test_losses_are_means_over_labelled_tokens(ranks, name, mask):
    expected, answers = check(ranks, PLANS[name], double=True, masks=MASKS[mask])
    for answer in answers:
        worst = relative(answer["gradients"], expected["gradients"])
        assert max(worst.values()) <= 1e-10, worst
        assert answer["losses"] == pytest.approx(expected["losses"], rel=1e-10)
        assert answer["norms"] == pytest.approx(expected["norms"], rel=1e-10)


@pytest.mark.parametrize("name", ["expert", "expert-tensor", "tensor, expert", "zero-3, expert"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_experts_that_get_no_token(ranks, name, top_k):
    expected, answers = check(ranks, PLANS[name], double=True, same_tokens=True, model={"blocks.0.feed_forward.top_k": top_k})
    assert any(0 in layer for layer in expected["counts"][0])
    for answer in answers:
        assert answer["counts"] == expected["counts"]
        for gradient, whole in ((answer["gradients"][key], expected["gradients"][key]) for key in expected["gradients"]):
            assert float((gradient - whole).norm()) <= 1e-10 * max(float(whole.norm()), 1e-6)


INFERRED = [name for name in ALL if not ALL[name].keys() & {"recomputation", "gradient_bucket_bytes", "overlap_gradient_sync", "attention_across_documents"}]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in PLANS_OF_FOUR else ()) for name in INFERRED])
def test_generation_and_validation_are_those_of_one_process(ranks, name):
    plan = ALL[name] | {"global_batch": global_batch(ALL[name])}
    (expected,) = ranks(1).run(run="infer", double=True, plan={"ranks": 1})
    for answer in ranks(plan["ranks"]).run(run="infer", double=True, plan=plan):
        assert answer["tokens"] == expected["tokens"]
        assert answer["loss"] == pytest.approx(expected["loss"], rel=1e-10)
        assert answer["counts"] == expected["counts"]
        assert answer["windows"] == expected["windows"]
