"""How tokens spread over experts drives expert compute, all-to-all and memory at once."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configuration.errors import ConfigurationError
from simulator.components import Component
from simulator.question import ask
from simulator.records.step_report import LayerLoad, StepReport
from simulator.specs import ExpertLoad

IDEAL = {"fabric": {"link_profile": "ideal", "spines": 4, "hop_latency_s": 0}}
EXPERTS, TOP_K, ROWS = 8, 2, 16 * 128 * 2


def report(load: dict[str, object], **more: dict[str, object]) -> StepReport:
    return ask("tiny-moe", "spine-leaf", settings={**IDEAL, "load": load, **more}).answer()


def flops(answer: StepReport, component: Component) -> float:
    return sum(row.flops for row in answer.time.rows if row.component is component)


def test_zipf_by_hand() -> None:
    shares = ExpertLoad(kind="zipf").shares(4, 1)
    assert np.sort(shares)[::-1] == pytest.approx(np.array([12, 6, 4, 3]) / 25)


def test_a_token_takes_different_experts_so_that_no_share_exceeds_one_over_top_k() -> None:
    # 1, 1/4, 1/9, 1/16 over their sum are 0.70, 0.18, 0.08, 0.04; the first is cut at 1/2, the others fill up the other half.
    shares = ExpertLoad(kind="zipf", exponent=2).shares(4, 2)
    assert np.sort(shares)[::-1] == pytest.approx([0.5, 0.5 * 36 / 61, 0.5 * 16 / 61, 0.5 * 9 / 61])


def test_the_worst_load_sends_every_token_to_the_same_experts() -> None:
    worst = ExpertLoad(kind="worst")
    assert worst.shares(4, 2).tolist() == [0.5, 0.5, 0, 0]
    assert worst.rank_shares(8, 2, 4).tolist() == [1, 0, 0, 0]
    assert worst.most_rows(100, 8, 2, 4) == 400


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 6), st.integers(0, 5), st.integers(0, 4), st.integers(0, 9))
def test_shares_add_up_under_their_limit(exponent: float, log_experts: int, log_top_k: int, seed: int) -> None:
    experts, top_k = 2**log_experts, 2 ** min(log_top_k, log_experts)
    shares = ExpertLoad(kind="zipf", exponent=exponent, seed=seed).shares(experts, top_k)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()
    assert shares.max() <= (1 + 1e-9) / top_k


def test_an_even_histogram_is_the_uniform_load() -> None:
    one, other = report({}), report({"kind": "histogram", "counts": [7.0] * EXPERTS})
    assert other.memory == one.memory
    assert other.time.step_s == pytest.approx(one.time.step_s, rel=1e-9)


@pytest.mark.parametrize("load", [{"kind": "zipf"}, {"kind": "zipf", "exponent": 2.0}, {"kind": "worst"}])
def test_experts_compute_the_rows_of_the_busiest_rank(load: dict[str, object]) -> None:
    one, other = report({}), report(load)
    most = ExpertLoad.model_validate(load).most_rows(ROWS, EXPERTS, TOP_K, ep=8)
    assert most > ROWS
    assert flops(other, Component.EXPERTS) == pytest.approx(flops(one, Component.EXPERTS) * most / ROWS)
    assert flops(other, Component.ROUTER) == flops(one, Component.ROUTER)


def test_memory_grows_with_the_rows_of_the_busiest_rank_alone() -> None:
    # Activations are linear in rows: three loads whose busiest rank gets 1, 2 and 3 times the mean lie on a line.
    def activations(times: int) -> int:
        counts = [float(times)] + [(EXPERTS - times) / (EXPERTS - 1)] * (EXPERTS - 1)
        answer = report({"kind": "histogram", "counts": counts})
        assert answer.memory.parameters_bytes == report({}).memory.parameters_bytes
        return answer.memory.activations_bytes

    one, two, three = map(activations, (1, 2, 3))
    assert three - two == two - one > 0


def test_incast_by_hand() -> None:
    # 4 ranks hold 2 experts each: all rows go to the first rank of a group, whose 50 GB/s link carries what 3 ranks send.
    answer = report({"kind": "worst"}, plan={"ep": 4})
    rows = [row for row in answer.communication if row.component is Component.DISPATCH and row.bytes_per_call > 1e6]
    sent = ROWS * 128 * 2
    assert {row.bytes_per_call for row in rows} == {sent}
    for row in rows:
        assert (row.time_s - row.latency_s) / row.calls == pytest.approx(3 * sent / 50e9)
    assert {row.bottleneck for row in rows} == {"leaf0->gpu0", "gpu0->leaf0"}


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 3), st.integers(0, 5))
def test_an_uneven_load_is_never_faster_nor_smaller(exponent: float, seed: int) -> None:
    one, other = report({}), report({"kind": "zipf", "exponent": exponent, "seed": seed})
    assert other.time.step_s >= one.time.step_s * (1 - 1e-9)
    assert other.memory.peak_allocated_bytes >= one.memory.peak_allocated_bytes


def test_alone_a_rank_holds_all_experts_and_gets_all_rows_anyway() -> None:
    alone = {"plan": {"ep": 1}}
    assert report({"kind": "worst"}, **alone).memory == report({}, **alone).memory


def test_the_report_says_whose_step_it_is() -> None:
    answer = report({"kind": "zipf", "exponent": 1.5})
    assert answer.load_specification == {"kind": "zipf", "exponent": 1.5}
    assert any("times the mean" in note for note in answer.provenance.notes)
    assert any(used.field == "load" for used in ask("tiny-moe", "spine-leaf").defaults)
    assert ask("llama-3-8b", "spine-leaf").answer().load_specification is None


@pytest.mark.parametrize(
    ("model", "load", "told"),
    [
        ("tiny-moe", {"kind": "histogram", "counts": [1.0] * 5}, "5 numbers for the 8 experts"),
        ("tiny-moe", {"kind": "histogram", "counts": [9.0] + [0.1] * 7}, "with top-2 at most 50.0%"),
        ("tiny-moe", {"kind": "histogram"}, "one number an expert"),
        ("tiny-moe", {"kind": "worst", "exponent": 2}, "exponent: is for kind zipf, not worst"),
        ("tiny-moe", {"kind": "zipf", "exponent": -1}, "exponent"),
        ("llama-3-8b", {"kind": "worst"}, "has no experts"),
    ],
)
def test_what_cannot_be_is_refused(model: str, load: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ask(model, "spine-leaf", settings={"load": load})


def test_dealt_tokens_leave_no_choice_of_the_load() -> None:
    with pytest.raises(ConfigurationError, match=r"plan\.routing uniform"):
        ask("tiny-moe", "spine-leaf", settings={"load": {"kind": "zipf"}, "plan": {"routing": "uniform"}})


def test_a_measured_load_is_the_median_layer_of_the_file(tmp_path: Path) -> None:
    layers = [LayerLoad.of(i, [busiest, *[10] * (EXPERTS - 1)], dropped=0) for i, busiest in enumerate((30, 10, 20))]
    measured, inspected, neither = (tmp_path / name for name in ("measured.json", "inspected.json", "neither.json"))
    measured.write_text(ask("tiny-moe", "spine-leaf").answer().model_copy(update={"layer_loads": layers}).model_dump_json())
    inspected.write_text(json.dumps({"expert_load": [{"shares": [count / 90 for count in layers[2].counts], "max_over_mean": 20 * EXPERTS / 90}]}))
    neither.write_text(json.dumps({"expert_load": []}))
    for file in (measured, inspected):
        load = ask("tiny-moe", "spine-leaf", load=str(file)).network.load
        assert load.shares(EXPERTS, TOP_K) == pytest.approx([20 / 90, *[10 / 90] * 7])
    with pytest.raises(ConfigurationError, match="no measured expert load"):
        ask("tiny-moe", "spine-leaf", load=str(neither))


def test_a_capacity_makes_every_load_even() -> None:
    capacity = {"model": {"blocks.0.feed_forward.capacity_factor": 1.25}}
    one, other = report({}, **capacity), report({"kind": "worst"}, **capacity)
    assert (other.memory, other.time, other.communication) == (one.memory, one.time, one.communication)
    assert any("same rows, whatever the load" in note for note in other.provenance.notes)
