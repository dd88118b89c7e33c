"""What attention costs: products, scores and traffic, forward, backward and computed again."""

import pytest

from simulator.explanation import explain
from simulator.program.build import build_program
from simulator.program.operations import Operation
from simulator.question import ask
from simulator.specs import load_model, load_plan
from simulator.specs.presets import DEVICES
from simulator.time.kernels import cost

SHAPE = {"width": 128, "blocks.0.mixer.heads": 4, "blocks.0.mixer.kv_heads": 4, "blocks.0.mixer.head_width": 32}
PRODUCT = 2 * 3 * 4 * 64 * 64 * 32
"""FLOPs of a product of three sequences of 64 tokens with four heads of width 32, before the causal half."""


def attention(plan: dict[str, object]) -> tuple[tuple[Operation, ...], dict[str, float]]:
    """The kernels of attention of a block, and the numbers of their symbols."""
    spec = load_model("tiny-moe", SHAPE)
    resolved = load_plan(spec, "mixed-precision", {"sequence": 64, "micro_batch": 3} | plan)[0]
    program = build_program(spec, resolved)
    stretch = program.stretches[1]
    passes = stretch.segment.passes[program.turns[0]]
    found = [operation for operation in (*passes.forward, *passes.backward) if operation.name.startswith("scaled_dot_product_attention")]
    return tuple(found), stretch.bindings


def test_scores_take_their_own_time_beside_products_and_traffic() -> None:
    (forward, backward), bindings = attention({})
    device = DEVICES.load("h200-sxm-141gb")
    rate = device.kernels[forward.kind]
    assert rate.launch_overhead_s is not None
    assert rate.scores_per_s is not None
    assert rate.backward_scores_per_s is not None
    assert rate.backward_bytes_per_s is not None
    # The causal half of three sequences with four heads of 64 x 64 scores; tensors of 24,576 elements in bf16, 768 logarithms in fp32.
    scores, tensor, log_sums = 3 * 4 * 64 * 64 / 2, 2 * 24_576, 4 * 768
    found = cost((forward, backward), bindings, device)
    assert list(found.scores) == [scores, scores]
    assert found.seconds[0] == pytest.approx(
        rate.launch_overhead_s.value
        + 2 * PRODUCT / 2 / rate.flops_per_s["bf16"].value
        + scores / rate.scores_per_s.value
        + (4 * tensor + log_sums) / rate.bytes_per_s.value
    )
    assert found.seconds[1] == pytest.approx(
        rate.launch_overhead_s.value
        + 5 * PRODUCT / 2 / rate.backward_flops_per_s["bf16"].value
        + scores / rate.backward_scores_per_s.value
        + (8 * tensor + log_sums) / rate.backward_bytes_per_s.value
    )


def test_attention_that_is_computed_again_costs_what_its_forward_did() -> None:
    (forward, again, backward), bindings = attention({"recomputation": "full"})
    assert (forward.phase, again.phase, backward.phase) == ("forward", "backward", "backward")
    seconds = cost((forward, again, backward), bindings, DEVICES.load("h200-sxm-141gb")).seconds
    assert seconds[0] == pytest.approx(seconds[1])
    assert seconds[2] != pytest.approx(seconds[1])


def test_narrow_heads_take_more_than_half_of_the_time_of_twice_as_wide_ones() -> None:
    seconds = []
    for width in (64, 128):
        mixer = {"model": {"blocks.0.mixer.heads": 16, "blocks.0.mixer.kv_heads": 16, "blocks.0.mixer.head_width": width}}
        rows = ask("moe-s1", "single-node", device="h200-sxm-141gb", gpus=1, settings=mixer).answer().time.rows
        seconds.append(sum(row.time_s for row in rows if row.component == "attention"))
    # 731 and 1,089 us, measured.
    assert seconds[0] / seconds[1] == pytest.approx(731 / 1089, rel=0.05)


def test_explain_shows_the_part_of_scores() -> None:
    found = explain(ask("moe-s1", "single-node", device="h200-sxm-141gb", gpus=1), "time.forward.attention")
    (term,) = found.terms
    assert "(B·H·S·S) / 2 scores = 2.684e+08, 8.775e-05 s of 0.000183" in term.formula
    assert "scores / scores_per_s" in found.remarks[0]
    assert any("3.059e+12 scores/s: fitted" in remark for remark in found.remarks)
