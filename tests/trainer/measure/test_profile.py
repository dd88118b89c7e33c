"""What a profile's kernels and collectives are worth, by a hand-made trace; and a real one on the CPU."""

import gzip
import json
from pathlib import Path

import pytest

from simulator.components import Component, Phase
from simulator.specs import load_model, load_plan
from trainer.measure.communication import Call
from trainer.measure.device_communication import call_times, exposed_by_place
from trainer.measure.profile import Profile, profile_steps
from trainer.measure.subject import build_subject, random_micro_batches
from trainer.measure.trace import LANES, write_trace

BASE_NS = 1_000_000_000
FORWARD, BACKWARD = (Phase.FORWARD, Component.EXPERTS), (Phase.BACKWARD, Component.DISPATCH)
SYNC = (Phase.OPTIMIZER, Component.GRADIENT_SYNC)


def kernel(name: str, launched_us: float, begin_us: float, end_us: float, stream: int) -> list[dict[str, object]]:
    """A kernel and the call that launched it, as the profiler writes them."""
    number = int(launched_us * 10)
    return [
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": launched_us, "dur": 1, "args": {"correlation": number}},
        {"ph": "X", "cat": "kernel", "name": name, "ts": begin_us, "dur": end_us - begin_us, "args": {"correlation": number, "stream": stream}},
    ]


@pytest.fixture
def profile() -> Profile:
    """Two products, an all-reduce that starts beside the second and ends 30 us after it, and AdamW; the host is far ahead."""
    events = [
        *kernel("gemm", 10, 100, 140, 7),
        *kernel("gemm", 20, 140, 180, 7),
        *kernel("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 25, 150, 210, 13),
        *kernel("adamw", 40, 210, 250, 7),
    ]
    marks = [(BASE_NS + 5_000, FORWARD), (BASE_NS + 15_000, BACKWARD), (BASE_NS + 30_000, SYNC)]
    return Profile(1, {"traceEvents": events, "baseTimeNanoseconds": BASE_NS}, marks, BASE_NS + 45_000)


def test_a_kernel_belongs_to_what_the_host_was_at_when_it_launched_it(profile: Profile) -> None:
    assert [profile.place(kernel.launched_s) for kernel in profile.kernels] == [FORWARD, BACKWARD, BACKWARD, SYNC]
    assert [kernel.communicates for kernel in profile.kernels] == [False, False, True, False]


def test_only_what_outlasts_the_computation_is_exposed(profile: Profile) -> None:
    call = Call(Component.DISPATCH, "all-reduce", None, (0, 1), 8, called_ns=BASE_NS + 24_000)
    (taken,) = call_times(profile, [call])
    assert taken.total_s == pytest.approx(60e-6)
    assert taken.exposed_s == pytest.approx(30e-6)


def test_exposed_time_is_where_the_host_waited_last_before_the_next_computation(profile: Profile) -> None:
    assert exposed_by_place(profile, [(BASE_NS + 25_000, BACKWARD), (BASE_NS + 35_000, SYNC)]) == {SYNC: pytest.approx(30e-6)}
    assert exposed_by_place(profile, [(BASE_NS + 25_000, BACKWARD)]) == {BACKWARD: pytest.approx(30e-6)}
    assert exposed_by_place(profile, []) == {SYNC: pytest.approx(30e-6)}


def test_lanes_of_the_device_join_neighbours_of_one_component(profile: Profile, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    write_trace(profile, file)
    lanes = [event for event in json.loads(file.read_text())["traceEvents"] if event.get("cat") == "component" and event["tid"] != "host"]
    found = [(event["tid"], event["name"], round(event["ts"]), round(event["dur"])) for event in lanes]
    assert [row for row in found if row[0] == "stream 7"] == [
        ("stream 7", "experts", 100, 40), ("stream 7", "dispatch", 140, 40), ("stream 7", "gradient_sync", 210, 40),
    ]  # fmt: skip
    assert [row for row in found if row[0] == "stream 13"] == [("stream 13", "dispatch", 150, 60)]


def test_a_real_step_has_its_operations_under_their_components(tmp_path: Path) -> None:
    spec = load_model("tiny-moe", {"blocks.0.count": 1})
    plan, _ = load_plan(spec, None, {"micro_batch": 1, "sequence": 32})
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0)
    file = tmp_path / "trace.json.gz"
    write_trace(profile_steps(subject, steps=2), file)
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    lanes = [event for event in events if event.get("pid") == LANES and event["ph"] == "X"]
    (attention, *others) = [event for event in lanes if (event["name"], event["args"]["phase"]) == ("attention", "forward")]
    assert len(others) == 1
    inside = [event["name"] for event in events if event.get("cat") == "cpu_op" and attention["ts"] <= event["ts"] < attention["ts"] + attention["dur"]]
    assert "aten::scaled_dot_product_attention" in inside
    assert {event["args"]["phase"] for event in lanes} == {"forward", "backward", "optimizer"}
