"""The real command lines of the simulator."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def simulator(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "simulator", *words], capture_output=True, text=True, cwd=cwd)


MAIN = ("--model", "tiny-moe", "--fabric", "spine-leaf")


def test_predict_prints_memory_time_throughput_and_every_default() -> None:
    done = simulator("predict", *MAIN)
    assert done.returncode == 0, done.stderr
    for words in ("parameters", "optimizer", "peak", "exposed communication", "tokens/s", "MFU", "bottleneck link", "Defaults used", "plan.ep = 8"):
        assert words in done.stdout
    assert done.stderr == ""


def test_predict_json_holds_what_is_documented(tmp_path: Path) -> None:
    target = tmp_path / "p.json"
    done = simulator("predict", *MAIN, "--json", "-o", str(target))
    document = json.loads(done.stdout)
    assert json.loads(target.read_text()) == document
    assert document["schema_version"] == 1
    for name in ("parameters_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes", "peak_allocated_bytes", "peak_at"):
        assert document["memory"][name]
    for name in ("step_s", "forward_s", "backward_s", "optimizer_s", "exposed_communication_s"):
        assert document["time"][name] > 0
    assert document["throughput"]["tokens_per_s"] > 0
    assert 0 < document["throughput"]["mfu"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "--model", "tinymoe", "--fabric", "spine-leaf"), "model: unknown name 'tinymoe'; did you mean 'tiny-moe'?"),
        (("predict", "--model", "tiny-moe", "--fabric", "spine"), "fabric: unknown name 'spine'"),
        (("predict", *MAIN, "--device", "h200"), "device: unknown name 'h200'"),
        (("predict", *MAIN, "--plan", "nowhere.yaml"), "plan: file 'nowhere.yaml' does not exist"),
        (("predict", *MAIN, "--gpus", "17"), "--gpus 17: fabric spine-leaf has 16 endpoints (legal: 1 to 16)"),
        (("predict", *MAIN, "--set", "plan.ranks=32"), "plan.ranks (32): fabric spine-leaf has 16 endpoints"),
        (("predict", *MAIN, "--set", "plan.mikro_batch=2"), "mikro_batch: unknown key; did you mean 'micro_batch'?"),
        (("predict", *MAIN, "--set", "plan.micro_batch=1,2"), "lists are for 'sweep'"),
        (("predict", *MAIN, "--set", "model.blocks.0.feed_forward.experts=7", "--set", "plan.ep=4"), "must divide the 7 experts"),
        (("predict", *MAIN, "--check", "0.1"), "--check 0.1: needs a report to compare with (--against)"),
        (("predict", *MAIN, "--against", "nowhere.json"), "report: file 'nowhere.json' does not exist"),
        (("predict", "--model", "tiny-moe"), "--fabric"),
        (("predict", *MAIN, "--frobnicate"), "--frobnicate"),
        (("explain", *MAIN, "memory.aktivations"), "did you mean 'memory.activations'?"),
        (("show", "nothing"), "show: unknown name 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: tuple[str, ...], message: str) -> None:
    done = simulator(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr


def test_a_prediction_compared_with_itself_is_equal(tmp_path: Path) -> None:
    target = tmp_path / "p.json"
    simulator("predict", *MAIN, "-o", str(target))
    done = simulator("predict", *MAIN, "--against", str(target), "--check", "0", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparison"]["peak"]["relative"] == 0
    table = simulator("compare", str(target), str(target))
    assert "+0." not in table.stdout
    assert "equal" in table.stdout


def test_a_missed_check_leaves_with_1(tmp_path: Path) -> None:
    target = tmp_path / "p.json"
    simulator("predict", *MAIN, "--set", "plan.micro_batch=8", "-o", str(target))
    done = simulator("predict", *MAIN, "--against", str(target), "--check", "0.01")
    assert done.returncode == 1
    assert "peak memory differs" in done.stderr


def test_measured_numbers_do_not_reach_the_prediction(tmp_path: Path) -> None:
    target, changed = tmp_path / "m.json", tmp_path / "changed.json"
    simulator("predict", *MAIN, "-o", str(target))
    document = json.loads(target.read_text())
    document["memory"]["peak_allocated_bytes"] *= 3
    document["memory"]["activations_bytes"] += 1
    document["time"]["step_s"] *= 2
    changed.write_text(json.dumps(document))
    answers = [json.loads(simulator("predict", *MAIN, "--against", str(path), "--json").stdout) for path in (target, changed)]
    for answer in answers:
        del answer["comparison"]
    assert answers[0] == answers[1]


def test_sweep_over_a_fabric_field_makes_a_row_for_each_value() -> None:
    done = simulator("sweep", "--model", "olmoe-1b-7b", "--fabric", "spine-leaf", "--set", "fabric.oversubscription=1,2,4,8", "--json")
    rows = json.loads(done.stdout)["rows"]
    assert [row["fabric.oversubscription"] for row in rows] == [1, 2, 4, 8]
    assert [row["step_s"] for row in rows] == sorted(row["step_s"] for row in rows)


def test_sweep_names_the_points_that_cannot_be() -> None:
    done = simulator("sweep", *MAIN, "--set", "plan.ep=1,3,8")
    assert done.returncode == 0
    assert "not possible" in done.stderr
    assert "ep (3) must divide ranks (16)" in done.stderr


def test_explain_adds_up_to_the_line() -> None:
    answer = json.loads(simulator("explain", *MAIN, "memory.activations", "--json").stdout)
    predicted = json.loads(simulator("predict", *MAIN, "--json").stdout)
    assert sum(term["value"] for term in answer["terms"]) == predicted["memory"]["activations_bytes"]
    assert "D·T · 2 bytes" in {term["formula"] for term in answer["terms"]}


@pytest.mark.parametrize("line", ["time.forward", "time.optimizer", "time.exposed_communication", "memory.peak", "throughput.mfu", "memory.optimizer"])
def test_explain_agrees_with_the_prediction(line: str) -> None:
    answer = json.loads(simulator("explain", *MAIN, line, "--json").stdout)
    predicted = json.loads(simulator("predict", *MAIN, "--json").stdout)
    section, name = line.split(".")
    suffix = {"time": "_s", "memory": "_bytes", "throughput": ""}[section]
    expected = predicted[section][{"peak": "peak_allocated"}.get(name, name) + suffix]
    assert answer["total"] == pytest.approx(expected, rel=1e-9)


def test_show_prints_yaml_that_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(simulator("show", "tiny-moe").stdout)
    assert simulator("predict", "--model", str(path), "--fabric", "spine-leaf").returncode == 0
    schema = json.loads(simulator("show", "plan", "--schema").stdout)
    assert "micro_batch" in schema["properties"]


def test_list_names_every_preset() -> None:
    listed = json.loads(simulator("list", "--json").stdout)
    assert {"tiny-moe", "mixtral-8x7b", "olmoe-1b-7b", "qwen3-30b-a3b", "llama-3-8b"} <= set(listed["models"])
    assert {"a100-sxm-80gb", "h100-sxm-80gb"} <= set(listed["devices"])


@pytest.mark.parametrize("command", ["predict", "explain", "compare", "sweep", "list", "show"])
def test_every_help_has_an_example(command: str) -> None:
    assert "Example" in simulator(command, "--help").stdout


def test_the_worst_single_failure_is_named_with_its_step() -> None:
    answer = json.loads(simulator("explain", "--worst-failure", "--model", "olmoe-1b-7b", "--fabric", "spine-leaf", "--json").stdout)
    worst = answer["failures"][0]
    degraded = json.loads(simulator("predict", "--model", "olmoe-1b-7b", "--fabric", "spine-leaf", "--fail", worst["name"], "--json").stdout)
    assert worst["step_s"] == pytest.approx(degraded["time"]["step_s"])
    assert worst["times"] > 1


def test_a_slow_link_slows_the_step() -> None:
    words = ("predict", "--model", "olmoe-1b-7b", "--fabric", "spine-leaf", "--json")
    healthy, slow = (json.loads(simulator(*words, *more).stdout)["time"]["step_s"] for more in ((), ("--slow", "leaf0:spine0=0.5")))
    assert slow > healthy


def test_a_file_that_cannot_be_written_is_told_in_one_line() -> None:
    done = simulator("predict", *MAIN, "-o", "/dev/null/p.json")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_network_is_explained_on_the_terminal() -> None:
    shown = simulator("explain", "network", "--model", "olmoe-1b-7b", "--fabric", "spine-leaf", "--worst-failure").stdout
    for words in ("expert", "of the step", "spine links halved", "1 µs more per hop", "Worst single failure of 10 tried: spine0"):
        assert words in shown
    wrong = simulator("explain", "memory.activations", "--model", "tiny-moe", "--fabric", "spine-leaf", "--worst-failure")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_an_expert_load_changes_a_prediction_by_name_and_by_field(tmp_path: Path) -> None:
    def activations_bytes(*words: str) -> int:
        return int(json.loads(simulator("predict", *MAIN, "--json", *words).stdout)["memory"]["activations_bytes"])

    uneven = tmp_path / "measured.yaml"
    uneven.write_text("kind: histogram\ncounts: [4, 4, 0, 0, 0, 0, 0, 0]\n")
    assert activations_bytes() < activations_bytes("--load", "worst")
    assert activations_bytes("--load", str(uneven)) == activations_bytes("--set", "load.kind=worst") == activations_bytes("--load", "worst")
    refused = simulator("predict", *MAIN, "--load", "zip")
    assert (refused.returncode, "did you mean 'zipf'" in refused.stderr) == (2, True)
