"""Predict the StepReport of one training step."""

from typing import Literal

from simulator.components import Kind, Phase, Role
from simulator.machine import this_machine
from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.records.step_report import DefaultUsed, Memory, Provenance, RankReport, StepReport, Throughput, Time
from simulator.specs import ExpertLoad, ModelSpec, MoeFeedForward, Plan
from simulator.specs.device import DeviceSpec
from simulator.specs.flops import model_flops_per_token
from simulator.specs.presets import Default
from simulator.time.communication import Network
from simulator.time.step import StepTime, step_time


def predict(model: ModelSpec, plan: Plan, device: DeviceSpec, network: Network, defaults: list[Default] | None = None) -> StepReport:
    """Memory and time of one steady step of ``model`` under ``plan`` on devices joined by the network's fabric.

    Raises ConfigurationError when plan, model and fabric do not go together.
    """
    on_cpu = device.host_and_device_are_one
    programs = [build_program(model, plan, network.load, on_cpu=on_cpu, stage=stage) for stage in range(plan.pp)]
    memories = [_with_workspaces(step_memory(program, plan), device) for program in programs]
    memory = max(memories, key=lambda stage: stage.peak_allocated_bytes)
    times = step_time(programs, plan, device, network)
    seconds = max(times, key=lambda stage: sum(stage.busy_s.values()))
    flops = model_flops_per_token(model, plan.sequence) * plan.tokens_per_step
    peak = device.peak_for(plan.precision)
    link = max(seconds.communication, key=lambda row: row.exposed_s, default=None)
    return StepReport(
        kind="predicted",
        model=model.name,
        parameters=model.parameters,
        active_parameters=model.active_parameters,
        model_specification=model.model_dump(mode="json"),
        plan=plan.model_dump(mode="json"),
        load_specification=network.load.model_dump(mode="json", exclude_none=True) if model.expert_counts else None,
        fabric=network.fabric.spec.name,
        memory=memory,
        time=_time(seconds),
        throughput=Throughput(
            tokens_per_s=plan.tokens_per_step / seconds.step_s,
            model_flops=flops,
            mfu=None if peak is None else flops / (seconds.step_s * plan.ranks * peak),
        ),
        communication=seconds.communication,
        ranks=[
            RankReport(rank=stage * plan.stage_ranks, memory=own, time=_time(time), communication=time.communication)
            for stage, (own, time) in enumerate(zip(memories, times, strict=True))
            if plan.pp > 1
        ],
        bottleneck=_bottleneck(seconds),
        bottleneck_link=link.bottleneck if link is not None and link.exposed_s > 0 else None,
        fits=None if device.memory_bytes is None else memory.peak_allocated_bytes <= device.memory_bytes,
        device_memory_bytes=device.memory_bytes,
        defaults=[DefaultUsed(field=default.field, value=default.value, reason=default.reason) for default in defaults or []],
        provenance=Provenance(
            tool="moe-ledger simulator",
            device=device.name,
            machine=device.machine,
            memory_source="liveness of the step program",
            time_source="kernel rates of the device profile and collectives on the fabric graph",
            notes=[*_notes(device, plan), *_load_notes(model, plan, network.load)],
        ),
    )


def _with_workspaces(memory: Memory, device: DeviceSpec) -> Memory:
    """The work spaces of matrix products with it, one of the thread that runs forward and one of autograd's."""
    if device.matrix_workspace_bytes is None:
        return memory
    held = 2 * round(device.matrix_workspace_bytes.value)
    at_peak = memory.at_peak | {Role.TEMPORARY: memory.at_peak[Role.TEMPORARY] + held}
    timeline = [point.model_copy(update={"bytes": point.bytes + held}) for point in memory.timeline]
    return memory.model_copy(update={"peak_allocated_bytes": memory.peak_allocated_bytes + held, "at_peak": at_peak, "timeline": timeline})


def _notes(device: DeviceSpec, plan: Plan) -> list[str]:
    """Where something else stands in for what was asked."""
    notes = []
    if device.host_and_device_are_one and device.machine and not device.machine.startswith(this_machine()):
        notes.append(f"the profile {device.name} is of another machine ({device.machine}; this one: {this_machine()}): its times are not this machine's")
    if plan.implementation.compile == "block" and device.host_and_device_are_one:
        notes.append(
            "implementation.compile block is predicted as a compiler for accelerators fuses: on a CPU other kernels run, whose times were not measured"
        )
    item: Literal["fp32", "bf16"] = "fp32" if plan.precision == "fp32" else "bf16"
    if plan.implementation.launch == "graph":
        notes.append("assumed: the host launches a graph in the time of one kernel")
        if device.graph_launch_overhead_s is None:
            notes.append(f"the profile {device.name} has no graph_launch_overhead_s: assumed, kernels of a graph follow one another as those issued alone")
    if plan.zero_stage and device.hook_overhead_s is None and not device.host_and_device_are_one:
        notes.append(f"the profile {device.name} has no hook_overhead_s: the Python of the hooks of sharded parameters is left out of the step")
    if device.matrix_workspace_bytes is None and not device.host_and_device_are_one:
        notes.append(f"the profile {device.name} has no matrix_workspace_bytes: the work space of matrix products is left out of the peak")
    if not device.host_and_device_are_one and device.kernels[Kind.POINTWISE].irregular_bytes_per_s is None:
        notes.append(f"the profile {device.name} has no irregular_bytes_per_s: assumed, casts and broadcasts are as fast as other element-wise kernels")
    if not device.host_and_device_are_one and device.kernels[Kind.ATTENTION].scores_per_s is None:
        notes.append(f"the profile {device.name} has no scores_per_s: assumed, attention with narrow heads reaches the FLOP rate of wide ones")
    without = sorted(kind for kind, rate in device.kernels.items() if rate.flops_per_s and item not in rate.flops_per_s)
    if without:
        notes.append(f"the profile {device.name} has no {item} rate of {', '.join(without)}: the rate of another type stands in")
    return notes


def _load_notes(model: ModelSpec, plan: Plan, load: ExpertLoad) -> list[str]:
    """Whose step this is when the experts' loads differ."""
    if load.kind == "uniform" or plan.ep == 1:
        return []
    mixtures = [group.feed_forward for group in model.blocks if isinstance(group.feed_forward, MoeFeedForward)]
    open_ended = [mixture for mixture in mixtures if mixture.capacity_factor is None]
    notes = [] if len(open_ended) == len(mixtures) else [f"expert load {load.text}: with a capacity_factor every expert has the same rows, whatever the load"]
    if open_ended:
        times = max(float(load.rank_shares(mixture.experts, mixture.top_k, plan.ep).max()) * plan.ep for mixture in open_ended)
        notes.append(f"expert load {load.text}: memory and time are those of the rank whose experts get most rows, {times:.3g} times the mean")
    return notes


def _time(seconds: StepTime) -> Time:
    exposed = max(0.0, seconds.step_s - seconds.alone_s)
    busy = seconds.busy_s
    return Time(
        step_s=seconds.step_s,
        forward_s=busy[Phase.FORWARD],
        backward_s=busy[Phase.BACKWARD],
        optimizer_s=busy[Phase.OPTIMIZER],
        exposed_communication_s=exposed,
        bubble_s=seconds.bubble_s,
        other_s=max(0.0, seconds.step_s - exposed - seconds.bubble_s - sum(busy.values())),
        communication_s=seconds.communication_s,
        rows=seconds.rows,
    )


def _bottleneck(seconds: StepTime) -> str:
    """What the largest share of the step is spent on."""
    busy = sum(seconds.busy_s.values())
    shares = {
        "network-bound": max(0.0, seconds.step_s - seconds.alone_s),
        "host-bound": max(0.0, seconds.alone_s - seconds.bubble_s - busy),
        "bubble-bound": seconds.bubble_s,
        "memory-bound": seconds.memory_bound_s,
        "compute-bound": max(0.0, busy - seconds.memory_bound_s),
    }
    return max(shares, key=lambda name: shares[name])
