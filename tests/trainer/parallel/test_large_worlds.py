"""Predicted memory of one of 64 ranks against the trainer's, whose other ranks are not there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.specs import ModelSpec, Plan

EQUAL = ("parameters_bytes", "buffers_bytes", "gradients_bytes", "optimizer_bytes", "inputs_bytes", "activations_bytes")
PEAK_TOLERANCE = 1e-3

MODEL = {
    "width": 64,
    "vocabulary": 300,
    "blocks.0.count": 2,
    "blocks.0.mixer.heads": 4,
    "blocks.0.mixer.kv_heads": 4,
    "blocks.0.mixer.head_width": 16,
    "blocks.0.feed_forward.experts": 16,
    "blocks.0.feed_forward.expert_width": 32,
}

PLANS = {
    "data": {"ep": 1},
    "expert": {"ep": 16, "global_batch": 256},
    "expert x expert-tensor": {"ep": 16, "etp": 2},
    "zero-2": {"ep": 1, "zero_stage": 2, "global_batch": 256},
    "zero-3 x expert": {"ep": 8, "zero_stage": 3},
    "hybrid x expert": {"ep": 4, "zero_stage": 3, "replicas": 4},
    "tensor x expert x zero-3": {"ep": 16, "tp": 4, "zero_stage": 3, "global_batch": 64},
    "tensor x expert x expert-tensor": {"ep": 8, "tp": 4, "etp": 4},
}


PIPELINES = {
    "pipeline x expert": {"pp": 4, "ep": 8, "global_batch": 256},
    "gpipe x data": {"pp": 4, "ep": 1, "schedule": "gpipe", "global_batch": 96},
    "interleaved x tensor x expert": {"pp": 2, "virtual_stages": 2, "schedule": "interleaved", "tp": 4, "ep": 16, "global_batch": 64},
}


def answers(plans, model, rank):
    cases = [{"rank": rank, "model": model, "plan": {"ranks": 64, "routing": "uniform", **plan}} for plan in plans.values()]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fake_world.py")], input=json.dumps(cases), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(plans, json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def first():
    return answers(PLANS, MODEL, 0) | answers(PIPELINES, MODEL | {"blocks.0.count": 4}, 0)


@pytest.fixture(scope="module")
def last():
    return answers(PIPELINES, MODEL | {"blocks.0.count": 4}, 63)


@pytest.mark.parametrize("name", [*PLANS, *PIPELINES])
def test_memory_of_the_first_of_64_ranks(first, name):
    check(first[name], stage=0)


@pytest.mark.parametrize("name", PIPELINES)
def test_memory_of_the_last_of_64_ranks(last, name):
    check(last[name], stage=PIPELINES[name]["pp"] - 1)


def check(answer, stage):
    plan = Plan.model_validate(answer["plan"])
    predicted = step_memory(build_program(ModelSpec.model_validate(answer["model"]), plan, stage=stage), plan)
    measured = answer["memory"]
    assert {field: getattr(predicted, field) for field in EQUAL} == {field: measured[field] for field in EQUAL}
    assert predicted.peak_allocated_bytes == pytest.approx(measured["peak_allocated_bytes"], rel=PEAK_TOLERANCE)
