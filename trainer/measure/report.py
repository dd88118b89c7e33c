"""Measure a step and assemble its StepReport."""

import os
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from simulator.records.step_report import DefaultUsed, Provenance, StepReport, Throughput
from simulator.specs.flops import model_flops_per_token
from simulator.specs.presets import Default
from trainer.measure.allocator import TOLERANCE, agrees, allocator_peak_bytes
from trainer.measure.communication import measure_communication
from trainer.measure.load import layer_loads
from trainer.measure.memory import MemoryPass, measure_memory
from trainer.measure.merge import apart, merged
from trainer.measure.subject import Subject
from trainer.measure.time import TimePass, measure_time


@dataclass(frozen=True)
class Measurement:
    """A report and, where it was asked for, whether the allocator agrees with it."""

    report: StepReport
    allocator_agrees: bool | None


def measure_step(subject: Subject, *, repeats: int, data: str, defaults: list[Default], check_allocator: bool = False) -> Measurement:
    """Memory pass, allocator check where it is asked for, time pass. ``data`` says in words what the tokens are."""
    memory = measure_memory(subject)
    agree, notes = _checked(subject, memory) if check_allocator else (None, [])
    time = measure_time(subject, memory.operations, repeats)
    report = _report(subject, memory, time, [f"tokens: {data}", *notes], defaults)
    return Measurement(_of_all_ranks(subject, report, repeats), agree)


def _of_all_ranks(subject: Subject, report: StepReport, repeats: int) -> StepReport:
    if subject.plan.ranks == 1:
        return report
    if subject.device == "cuda":
        note = "collectives are not timed on CUDA: their seconds are in the rows of their components"
        provenance = report.provenance.model_copy(update={"notes": [*report.provenance.notes, note]})
        return merged(report.model_copy(update={"provenance": provenance}), subject.parallel.world)
    communication = measure_communication(subject, repeats)
    report = report.model_copy(update={"communication": communication.rows, "time": apart(report.time, communication)})
    return merged(report, subject.parallel.world)


def _checked(subject: Subject, memory: MemoryPass) -> tuple[bool, list[str]]:
    tracked = memory.memory.peak_allocated_bytes
    allocator = allocator_peak_bytes(subject, memory.before_bytes)
    note = f"allocator check: peak {allocator} bytes by the profiler's memory events, {tracked} tracked, apart {abs(allocator - tracked) / allocator:.4%}"
    return agrees(tracked, allocator), [f"{note} (tolerance {TOLERANCE:.2%})"]


def _report(subject: Subject, memory: MemoryPass, time: TimePass, notes: list[str], defaults: list[Default]) -> StepReport:
    plan = subject.plan
    notes = [
        *notes,
        f"rows multiplied by {time.clock_ratio:.4f}: the step without a clock over the step with one",
        f"yardstick: {time.yardstick} at {time.yardstick_flops_per_s:.4g} FLOP/s, median of runs between the steps",
        "rows count operations and time; FLOPs and traffic are the prediction's",
    ]
    return StepReport(
        kind="measured",
        model=subject.spec.name,
        parameters=subject.spec.parameters,
        active_parameters=subject.spec.active_parameters,
        model_specification=subject.spec.model_dump(mode="json"),
        plan=plan.model_dump(mode="json"),
        fabric="none: one process" if plan.ranks == 1 else f"measured on {plan.ranks} ranks",
        memory=memory.memory,
        time=time.time,
        throughput=Throughput(
            tokens_per_s=plan.tokens_per_step / time.time.step_s,
            model_flops=model_flops_per_token(subject.spec, plan.sequence) * plan.tokens_per_step,
            mfu=None,
        ),
        layer_loads=layer_loads(subject.spec, memory.losses),
        defaults=[DefaultUsed(field=default.field, value=default.value, reason=default.reason) for default in defaults],
        provenance=Provenance(
            tool="trainer measure",
            device=_device_name(subject.device),
            machine=f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
            versions={"python": platform.python_version(), "torch": torch.__version__, "moe-ledger": version("moe-ledger")},
            command=f"python -m trainer {shlex.join(sys.argv[1:])}",
            threads=torch.get_num_threads(),
            memory_source=memory.source,
            time_source=f"median of {len(time.time.repeats_s)} steps after warm-up; {time.source}",
            yardstick_flops_per_s=time.yardstick_flops_per_s,
            notes=notes,
        ),
    )


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def _processor() -> str:
    """The processor's name, as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
