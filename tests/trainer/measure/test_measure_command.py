"""The real command line of ``measure``."""

import gzip
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.records.step_report import StepReport
from simulator.specs import ModelSpec, Plan

SMALL = ["--set", "model.blocks.0.count=1", "--set", "plan.micro_batch=2", "--set", "plan.sequence=32", "--repeats", "2", "--threads", "1"]


@pytest.fixture
def measure(trainer):
    return partial(trainer, "measure")


def test_the_table_is_printed_and_the_report_written(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    trace = tmp_path / "trace.json.gz"
    arguments = ["--model", "tiny-moe", *SMALL, "--seed", "3", "--device", "cpu", "--check-allocator", "--trace", str(trace), "-o", str(file)]
    result = subprocess.run([sys.executable, "-m", "trainer", "measure", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "traceEvents" in json.loads(gzip.decompress(trace.read_bytes()))
    report = StepReport.model_validate(json.loads(file.read_text()))
    assert f"{report.memory.peak_allocated_bytes:,}" in result.stdout
    assert "temporaries" in result.stdout
    assert "allocator check" in " ".join(report.provenance.notes)
    assert "tokens: uniform random, seed 3" in report.provenance.notes
    assert report.kind == "measured"
    assert report.plan["micro_batch"] == 2
    assert report.provenance.threads == 1
    assert len(report.time.repeats_s) == 2
    assert {"plan.ranks"} <= {default.field for default in report.defaults}


ROUTER = {"router": "sigmoid", "selection_bias": "true", "weight_scale": "2.5", "shared_width": "32", "capacity_factor": "1.25", "top_k": "2"}
LEVERS = {"recomputation": "[attention,experts]", "implementation.cross_entropy": "chunked", "precision": "bf16-mixed", "global_batch": "4"}


@pytest.mark.parametrize("levers", [LEVERS, {"recomputation": "full", "routing": "uniform"}], ids=["a list of parts", "whole blocks, even routing"])
def test_routers_and_levers_are_settings_of_the_command_line_and_are_predicted(measure, levers: dict[str, str]) -> None:
    settings = [f"model.blocks.0.feed_forward.{name}={value}" for name, value in ROUTER.items()] + [f"plan.{name}={value}" for name, value in levers.items()]
    result = measure("--model", "tiny-moe", *SMALL, *(word for setting in settings for word in ("--set", setting)), "--device", "cpu", "--json")
    assert result.code == 0, result.err
    report = StepReport.model_validate(json.loads(result.out))
    model, plan = ModelSpec.model_validate(report.model_specification), Plan.model_validate(report.plan)
    predicted = step_memory(build_program(model, plan), plan)
    assert predicted.components == report.memory.components
    assert predicted.peak_allocated_bytes == pytest.approx(report.memory.peak_allocated_bytes, rel=1e-3)
    assert all(row.dropped == 0 for row in report.layer_loads) == (levers.get("routing") == "uniform")


def test_json_is_one_document_on_stdout_with_tokens_of_real_text(measure, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("In the beginning God created the heaven and the earth.\n" * 200)
    data = tmp_path / "data.yaml"
    data.write_text(f"sources: [{{kind: text-files, paths: [{text}]}}]\n")
    result = measure("--model", "tiny-moe", *SMALL, "--data", str(data), "--set", "data.tokenizer=bytes", "--device", "cpu", "--json")
    assert result.code == 0, result.err
    report = StepReport.model_validate(json.loads(result.out))
    assert report.provenance.notes[0] == f"tokens: data {data}, seed 0"


def test_a_plan_file_is_taken(measure, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("sequence: 16\nmicro_batch: 1\nimplementation: {experts: loop}\n")
    result = measure("--model", "tiny-moe", "--plan", str(plan), "--set", "model.blocks.0.count=1", "--repeats", "1", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["plan"]["implementation"]["experts"] == "loop"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "tiny-mo"], "did you mean 'tiny-moe'"),
        (["--model", "tiny-moe", "--set", "plan.ranks=2"], "plan.ranks (2)"),
        (["--model", "tiny-moe", "--set", "model.widht=8"], "did you mean 'width'"),
        (["--model", "tiny-moe", "--set", "data.tokenizer=bytes"], "no --data was given"),
        (["--model", "tiny-moe", "--data", "simple-corpse"], "did you mean 'simple-corpus'"),
        (["--model", "tiny-moe", "--set", "model.vocabulary=200", "--data", "simple-corpus"], "vocabulary"),
        (["--model", "tiny-moe", "--device", "tpu"], "device"),
        (["--model", "tiny-moe", "--device", "cpu", "--memory-snapshot", "s.pickle"], "--memory-snapshot"),
        (["--model", "tiny-moe", "--set", "plan.implementation.compile=block"], "plan.implementation.compile block"),
        (["--model", "tiny-moe", "--trace", "step.txt"], "must end in .json or .json.gz"),
        (["--model", "tiny-moe", "--levers", "--trace", "step.json"], "--trace does not go with --levers"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(measure, arguments: list[str], told: str, tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    result = measure(*arguments, "-o", str(file))
    assert result.code == 2
    assert told in result.err
    assert [line for line in result.err.splitlines() if "error" in line.lower()] == [result.err.strip().splitlines()[-1]]
    assert not file.exists()


def test_a_missed_allocator_check_is_exit_code_1(measure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("trainer.measure.report.agrees", lambda tracked, allocator: False)
    file = tmp_path / "m.json"
    assert measure("--model", "tiny-moe", *SMALL, "--check-allocator", "-o", str(file)).code == 1
    assert file.exists()


def test_help_has_an_example(measure) -> None:
    assert "python -m trainer measure --model tiny-moe" in measure("--help").out
