"""``pretrain`` and ``measure`` over two processes, and what is left when one of them is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

MODEL = (
    "model.width=32", "model.vocabulary=260", "model.blocks.0.count=1", "model.blocks.0.mixer.head_width=8",
    "model.blocks.0.feed_forward.expert_width=16", "plan.sequence=32", "plan.micro_batch=4",
)  # fmt: skip


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Start ``python -m trainer`` on several ranks in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(*arguments, ranks=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "COLUMNS": "200"}
        started.extend(
            subprocess.Popen(
                [sys.executable, "-m", "trainer", *arguments],
                env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        )
        return started[-ranks:]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def settings(*chosen):
    last = {setting.partition("=")[0]: setting for setting in chosen}
    return [word for setting in last.values() for word in ("--set", setting)]


@pytest.mark.slow
def test_a_run_over_two_ranks_gives_the_losses_of_one(command, small_run):
    results = {}
    for ranks in (1, 2):
        plan = settings(*small_run, "plan.global_batch=16")
        processes = command("pretrain", "--json", "--name", f"run-{ranks}", *plan, ranks=ranks)
        outputs = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0] * ranks, outputs[0][1]
        assert all(out == "" for out, _ in outputs[1:])
        results[ranks] = json.loads(outputs[0][0])
    assert results[2]["validation_loss_nats_per_token"] == pytest.approx(results[1]["validation_loss_nats_per_token"], abs=1e-3)
    assert results[2]["first_loss_nats_per_token"] == pytest.approx(results[1]["first_loss_nats_per_token"], abs=1e-6)


@pytest.mark.slow
def test_measure_merges_the_reports_of_all_ranks(command):
    processes = command("measure", "--model", "tiny-moe", "--json", "--repeats", "2", "--device", "cpu", "--trace", "step.json.gz", *settings(*MODEL))
    outputs = [process.communicate(timeout=120) for process in processes]
    assert outputs[1][0] == ""
    report = json.loads(outputs[0][0])
    assert {file.name for file in Path().glob("step*")} == {"step-rank0.json.gz", "step-rank1.json.gz"}
    assert [(place["rank"], place["device"]) for place in report["provenance"]["placement"]] == [(0, "cpu"), (1, "cpu")]
    assert [rank["rank"] for rank in report["ranks"]] == [0, 1]
    works = [sum(rank["time"][part] for part in ("forward_s", "backward_s", "optimizer_s")) for rank in report["ranks"]]
    assert report["time"] == report["ranks"][works.index(max(works))]["time"]
    assert report["memory"]["peak_allocated_bytes"] == max(rank["memory"]["peak_allocated_bytes"] for rank in report["ranks"])
    # Forward: counts, rows, weights out; backward: rows and weights.
    assert {(row["component"], row["calls"]) for row in report["communication"] if row["name"] == "expert"} == {("dispatch", 5), ("combine", 2)}
    assert {row["name"] for row in report["communication"]} == {"expert", "data", "stage", "all"}
    for row in report["communication"]:
        assert 0 <= row["waiting_s"] <= row["exposed_s"]
        assert row["time_s"] > 0
    adds_up(report["time"])


def adds_up(time_s):
    parts = ("forward_s", "backward_s", "optimizer_s", "exposed_communication_s", "bubble_s", "other_s")
    assert sum(time_s[part] for part in parts) == pytest.approx(time_s["step_s"])
    assert all(time_s[part] >= 0 for part in parts)


PIPELINE = ("model.blocks.0.count=2", "plan.pp=2", "plan.ep=1", "plan.global_batch=16")


@pytest.mark.slow
def test_measure_takes_pipelines_and_compares_with_what_is_predicted(command, tmp_path):
    arguments = ("--model", "tiny-moe", "--json", *settings(*MODEL, *PIPELINE))
    processes = command("measure", "--repeats", "2", "--device", "cpu", "-o", str(tmp_path / "m.json"), *arguments)
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1]
    report = json.loads(outputs[0][0])
    for rank in report["ranks"]:
        adds_up(rank["time"])
        assert {(row["name"], row["collective"]) for row in rank["communication"]} == {
            ("ends", "all-reduce"), ("all", "all-reduce"), ("neighbours", "point-to-point"),
        }  # fmt: skip
        assert [row["calls"] for row in rank["communication"] if row["name"] == "neighbours"] == [4]
        assert rank["time"]["bubble_s"] > 0
    assert [load["layer"] for load in report["layer_loads"]] == [0, 1]
    predict = ("predict", "--fabric", "single-node", "--device", "cpu", "--gpus", "2", "-o", str(tmp_path / "p.json"), *arguments)
    subprocess.run([sys.executable, "-m", "simulator", *predict, "--set", "plan.precision=fp32"], check=True, capture_output=True)
    compare = [sys.executable, "-m", "simulator", "compare", str(tmp_path / "p.json"), str(tmp_path / "m.json"), "--json"]
    compared = json.loads(subprocess.run(compare, check=True, capture_output=True, text=True).stdout)
    assert compared["only_in_first"] == compared["only_in_second"] == []
    assert compared["different_plan_fields"] == []
    assert abs(compared["peak"]["relative"]) < 1e-3
    assert {line["first"] for line in compared["memory"]} == {line["second"] for line in compared["memory"]}


def test_a_plan_for_more_ranks_than_were_started_is_refused_once(command):
    processes = command("measure", "--model", "tiny-moe", *settings("plan.ranks=4"))
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert errors[0].startswith("error: plan.ranks (4): 2 process(es) were started")
    assert errors[1] == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_end_of_one_rank_ends_the_other_with_one_line(command, small_run, number):
    first, second = command(
        "pretrain", "--name", "lost",
        *settings(*small_run, "plan.global_batch=16", "training.tokens=100000000", "training.collective_timeout_s=8"),
    )  # fmt: skip
    log = Path("runs/lost/log.jsonl")
    deadline = time.monotonic() + 100
    while not log.is_file() or log.stat().st_size < 2000:
        assert time.monotonic() < deadline, "no step was taken"
        time.sleep(0.1)
    second.send_signal(number)
    _, errors = first.communicate(timeout=90)
    assert first.returncode == 1
    assert errors.rstrip().splitlines()[-1].startswith("error: rank 0: another of the 2 ranks ended or did not answer in time (")
    assert "Traceback" not in errors
