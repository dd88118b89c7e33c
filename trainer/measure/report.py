"""Measure a step and assemble its StepReport."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from simulator.records.step_report import DefaultUsed, Provenance, StepReport, Throughput
from simulator.specs.flops import model_flops_per_token
from simulator.specs.presets import Default
from trainer.measure.allocator import TOLERANCE, agrees, allocator_peak_bytes
from trainer.measure.communication import measure_communication
from trainer.measure.device_communication import measure_device_communication
from trainer.measure.load import layer_loads
from trainer.measure.memory import MemoryPass, measure_memory
from trainer.measure.merge import apart, merged
from trainer.measure.profile import Profile, profile_steps
from trainer.measure.snapshot import write_snapshot
from trainer.measure.subject import Subject
from trainer.measure.surroundings import device_name, machine, place_of, settings, versions
from trainer.measure.time import TimePass, measure_time
from trainer.measure.trace import write_trace
from trainer.parallel.together import gathered
from trainer.parallel.world import World


@dataclass(frozen=True)
class Measurement:
    """A report and, where it was asked for, whether the allocator agrees with it."""

    report: StepReport
    allocator_agrees: bool | None


@dataclass(frozen=True)
class Extras:
    """What is made only when it is asked for. ``trace``, ``snapshot``: files; each rank of several puts its number into their names."""

    check_allocator: bool = False
    trace: Path | None = None
    snapshot: Path | None = None


def measure_step(subject: Subject, *, repeats: int, data: str, defaults: list[Default], extras: Extras = Extras()) -> Measurement:
    """Memory pass, allocator check, time pass, communication over ranks, trace and snapshot. ``data`` says in words what the tokens are."""
    memory = measure_memory(subject)
    agree, notes = _checked(subject, memory) if extras.check_allocator else (None, [])
    time = measure_time(subject, memory.operations, repeats)
    report = _report(subject, memory, time, [f"tokens: {data}", *notes], defaults)
    report, profile = _of_all_ranks(subject, report, repeats)
    if extras.trace is not None:
        write_trace(profile or profile_steps(subject), file_of_rank(extras.trace, subject.parallel.world))
    if extras.snapshot is not None:
        write_snapshot(subject, file_of_rank(extras.snapshot, subject.parallel.world))
    return Measurement(report, agree)


def file_of_rank(file: Path, world: World) -> Path:
    """``file``, with the rank before what its name ends in where there are several."""
    if world.plan.ranks == 1:
        return file
    stem, dot, ends = file.name.partition(".")
    return file.with_name(f"{stem}-rank{world.rank}{dot}{ends}")


def _of_all_ranks(subject: Subject, report: StepReport, repeats: int) -> tuple[StepReport, Profile | None]:
    """The merged report of several ranks; on CUDA their communication comes out of a profile, which is given on."""
    if subject.plan.ranks == 1:
        return report, None
    profile = None
    if subject.device == "cuda" and subject.parallel.pipeline is not None:
        note = "communication of a pipeline is not timed on CUDA: what a stage waits is in other_s"
        provenance = report.provenance.model_copy(update={"notes": [*report.provenance.notes, note]})
        return merged(report.model_copy(update={"provenance": provenance}), subject.parallel.world), None
    if subject.device == "cuda":
        communication, profile = measure_device_communication(subject)
        provenance = report.provenance
        source = f"{provenance.time_source}; communication: NCCL's kernels in {profile.steps} profiled steps"
        report = report.model_copy(update={"provenance": provenance.model_copy(update={"time_source": source})})
    else:
        communication = measure_communication(subject, repeats)
    report = report.model_copy(update={"communication": communication.rows, "time": apart(report.time, communication)})
    return merged(report, subject.parallel.world), profile


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
        layer_loads=layer_loads(subject.parallel, memory.losses),
        defaults=[DefaultUsed(field=default.field, value=default.value, reason=default.reason) for default in defaults],
        provenance=Provenance(
            tool="trainer measure",
            device=device_name(subject.device),
            machine=machine(),
            versions=versions(subject.device),
            command=f"python -m trainer {shlex.join(sys.argv[1:])}",
            threads=torch.get_num_threads(),
            memory_source=memory.source,
            time_source=f"median of {len(time.time.repeats_s)} steps after warm-up; {time.source}",
            yardstick_flops_per_s=time.yardstick_flops_per_s,
            settings=settings(),
            placement=gathered(subject.parallel.world, place_of(subject.parallel.world)),
            notes=notes,
        ),
    )
