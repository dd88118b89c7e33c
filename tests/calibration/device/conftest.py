"""Reports whose times are known exactly: what a given device would take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configuration.command import to_json
from configuration.overrides import parse_single
from fabrics.loading import load_fabric
from simulator.predict import predict
from simulator.records.step_report import Provenance, StepReport
from simulator.specs import load_model, load_plan
from simulator.specs.device import PRICED_KINDS, DeviceSpec
from simulator.time.communication import Network

PRODUCTS = {"gemm": 6e10, "grouped_gemm": 5e10, "attention": 2e10}
BYTES_PER_S = {"pointwise": 3e10, "reduce": 2e10, "gather": 2.5e10, "scatter": 1e10, "sort": 4e8, "optimizer": 2.2e10}

SHAPES = {
    "small": ["plan.micro_batch=1", "plan.sequence=32"],
    "default": [],
    "long": ["plan.micro_batch=1", "plan.sequence=1024"],
    "experts": ["model.blocks.0.feed_forward.experts=32", "model.blocks.0.feed_forward.top_k=4", "plan.micro_batch=4"],
    "wide": ["model.width=384", "model.blocks.0.count=1", "plan.micro_batch=2", "plan.global_batch=4"],
    "vocabulary": ["model.vocabulary=16384", "model.blocks.0.count=2", "plan.micro_batch=2"],
}


def constant(value: float) -> dict[str, Any]:
    return {"value": value, "origin": "assumed", "reference": "test"}


@pytest.fixture(scope="session")
def truth() -> DeviceSpec:
    """A processor that obeys the cost model exactly."""
    kernels = {kind.value: {"bytes_per_s": constant(BYTES_PER_S.get(kind.value, 1.5e10))} for kind in PRICED_KINDS}
    for kind, rate in PRODUCTS.items():
        kernels[kind]["flops_per_s"] = {"fp32": constant(rate)}  # type: ignore[dict-item]
    kernels["attention"]["backward_flops_per_s"] = {"fp32": constant(1.7e10)}  # type: ignore[dict-item]
    return DeviceSpec.model_validate(
        {
            "name": "truth", "source": "test", "machine": "a machine, 1 thread", "host_and_device_are_one": True, "default_precision": "fp32",
            "memory_bytes": None, "launch_overhead_s": constant(1e-5), "host_overhead_s": constant(0.0), "exponentials_per_s": constant(8e8),
            "kernels": kernels,
        }
    )  # fmt: skip


def report_of(device: DeviceSpec, settings: list[str]) -> StepReport:
    """The report of a step on ``device``, as ``python -m trainer measure`` would write it."""
    overrides = parse_single(settings, ("model", "plan"))
    model = load_model("tiny-moe", overrides.get("model"))
    plan, _ = load_plan(model, None, overrides.get("plan"))
    report = predict(model, plan, device, Network(load_fabric("single-node", {}), plan))
    provenance = Provenance(tool="test", device="cpu", machine="a machine", threads=1, versions={"torch": "0"})
    return report.model_copy(update={"kind": "measured", "provenance": provenance})


@pytest.fixture(scope="session")
def reports(truth: DeviceSpec) -> dict[str, StepReport]:
    """Reports of all shapes on the true device."""
    return {name: report_of(truth, settings) for name, settings in SHAPES.items()}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, StepReport], str], Path]:
    """Write reports into a folder and tell which."""

    def written(reports: dict[str, StepReport], folder: str) -> Path:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        for name, report in reports.items():
            (path / f"{name}.json").write_text(to_json(report.model_dump(mode="json")), encoding="utf-8")
        return path

    return written
