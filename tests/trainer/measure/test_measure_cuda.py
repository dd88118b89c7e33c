"""The CUDA side of ``measure``."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simulator.components import Component, Phase
from simulator.specs import load_model, load_plan
from trainer.measure.profile import profile_steps
from trainer.measure.report import Extras, measure_step
from trainer.measure.subject import build_subject, random_micro_batches

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("optimizer", ["fused", "for-loop"])
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_peak_is_the_allocators_and_categories_add_up_to_it(precision: str, optimizer: str) -> None:
    spec = load_model("tiny-moe")
    plan, _ = load_plan(spec, None, {"precision": precision, "global_batch": 32, "implementation": {"optimizer": optimizer}})
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0, device="cuda"), seed=0, device="cuda")
    report = measure_step(subject, repeats=3, data="random", defaults=[]).report
    memory, time = report.memory, report.time
    assert sum(memory.at_peak.values()) == memory.peak_allocated_bytes
    assert memory.peak_reserved_bytes is not None
    assert memory.peak_reserved_bytes >= memory.peak_allocated_bytes > memory.parameters_bytes + memory.optimizer_bytes
    assert "CUDA allocator" in report.provenance.memory_source
    assert "CUDA events" in report.provenance.time_source
    assert sum(row.time_s for row in time.rows) + time.other_s == pytest.approx(time.step_s)
    assert Component.EXPERTS in {row.component for row in time.rows}


def test_trace_snapshot_and_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "0")
    spec = load_model("tiny-moe", {"blocks.0.count": 1})
    plan, _ = load_plan(spec, None, {"precision": "bf16-mixed"})
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0, device="cuda"), seed=0, device="cuda")
    extras = Extras(trace=tmp_path / "trace.json", snapshot=tmp_path / "snapshot.pickle")
    provenance = measure_step(subject, repeats=1, data="random", defaults=[], extras=extras).report.provenance
    assert provenance.settings["NCCL_NVLS_ENABLE"] == "0"
    assert {"torch", "cuda", "nccl"} <= set(provenance.versions)
    (place,) = provenance.placement
    assert (place.device_name, place.memory_bytes) == (torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory)
    lanes = {event["tid"]: event for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if event.get("cat") == "component"}
    assert "host" in lanes
    assert any(lane.startswith("stream") for lane in lanes)
    assert (tmp_path / "snapshot.pickle").stat().st_size > 1000


def test_the_kernels_of_a_step_belong_to_components_and_fill_no_more_than_its_time(tmp_path: Path) -> None:
    spec = load_model("tiny-moe")
    plan, _ = load_plan(spec, None, {"precision": "bf16-mixed"})
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0, device="cuda"), seed=0, device="cuda")
    profile = profile_steps(subject, steps=2)
    places = {profile.place(kernel.launched_s) for kernel in profile.kernels}
    assert None not in places
    assert {(Phase.FORWARD, Component.EXPERTS), (Phase.BACKWARD, Component.EXPERTS), (Phase.OPTIMIZER, Component.OPTIMIZER)} <= places
    # The clocks of host and device need not agree to better than this.
    first, last = profile.seconds(profile.marks[0][0]) - 1e-3, profile.seconds(profile.end_ns) + 1e-3
    assert all(first <= kernel.span[0] and kernel.span[1] <= last for kernel in profile.kernels)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("plan", [["plan.ep=1"], ["plan.ep=2"], ["plan.zero_stage=3", "plan.ep=1"]], ids=["data", "expert", "sharded"])
def test_collectives_of_two_gpus_are_timed_by_group(plan: list[str], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [word for setting in plan for word in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "trainer",
        "measure",
        "--model",
        "tiny-moe",
        "--device",
        "cuda",
        "--json",
        "--trace",
        str(tmp_path / "t.json.gz"),
        *settings,
    ]
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(command, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    (out, errors), _ = [process.communicate(timeout=300) for process in ranks]
    assert ranks[0].returncode == 0, errors
    report = json.loads(out)
    assert report["communication"]
    for row in report["communication"]:
        assert 0 <= row["waiting_s"] <= row["exposed_s"] <= row["time_s"]
    assert sum(row["time_s"] for row in report["communication"]) > 0
    assert len({place["device_uuid"] for place in report["provenance"]["placement"]}) == 2
    assert {file.name for file in tmp_path.iterdir()} == {"t-rank0.json.gz", "t-rank1.json.gz"}
