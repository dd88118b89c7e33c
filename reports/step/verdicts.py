"""The step in words: what leads the memory, what Adam costs, what holds the step back, and how far prediction and measurement are apart."""

from reports.step.series import Pair, activations_by_component, role_name, words
from simulator.comparison import compare
from simulator.components import Role
from simulator.records.step_report import StepReport
from simulator.units import show_bytes, show_count, show_seconds


def verdicts(pair: Pair) -> tuple[str, ...]:
    """Sentences for the head of the page."""
    report = pair.predicted
    said = [leader(report), adam(report), pace(report)]
    if report.fits is not None and report.device_memory_bytes is not None:
        room = f"{show_bytes(report.memory.peak_allocated_bytes)} of {show_bytes(report.device_memory_bytes)}"
        said.append(f"It fits: {room}." if report.fits else f"It does not fit: {room}. Its time is that of a device with more memory.")
    return tuple(said) + agreement(pair)


def leader(report: StepReport) -> str:
    """Which category holds most at the peak, which comes next, and which component makes most activations."""
    peak = report.memory.peak_allocated_bytes
    first, second = sorted(Role, key=lambda role: -report.memory.at_peak.get(role, 0))[:2]
    sizes = [report.memory.at_peak.get(role, 0) for role in (first, second)]
    at = report.memory.peak_at
    text = (
        f"{role_name(first).capitalize()} lead at the peak of {show_bytes(peak)} with {show_bytes(sizes[0])} ({sizes[0] / peak:.0%}), "
        f"then {role_name(second)} with {show_bytes(sizes[1])} ({sizes[1] / peak:.0%}); the peak lies in {at.phase} of {words(at.component)} ({at.operation})."
    )
    kept = activations_by_component(report)
    if kept:
        most = sorted(kept, key=lambda component: -kept[component])[:2]
        named = " and ".join(f"{words(component)} ({show_bytes(kept[component])})" for component in most)
        text += f" Of the {show_bytes(report.memory.activations_bytes)} of activations kept for backward, most belong to {named}."
    return text


def adam(report: StepReport) -> str:
    """Adam's bytes over those of the weights."""
    memory = report.memory
    if not memory.parameters_bytes:
        return "The model has no weights."
    ratio = memory.optimizer_bytes / memory.parameters_bytes
    return (
        f"Adam's states take {ratio:.4g} times the bytes of the weights ({show_bytes(memory.optimizer_bytes)} beside {show_bytes(memory.parameters_bytes)}): "
        "a mean and a variance for every parameter, and one step counter for every tensor."
    )


def pace(report: StepReport) -> str:
    """How long the step is, how fast that is, and what it is spent on."""
    time, rate = report.time, report.throughput
    text = f"A step takes {show_seconds(time.step_s)}: {show_count(rate.tokens_per_s)} tokens/s"
    if rate.mfu is not None:
        text += f", MFU {rate.mfu:.2%}"
    parts = {"forward": time.forward_s, "backward": time.backward_s, "optimizer": time.optimizer_s, "exposed communication": time.exposed_communication_s,
             "the host and what is between the phases": time.other_s}  # fmt: skip
    most = max(parts, key=lambda name: parts[name])
    text += f". The largest part is {most} ({parts[most] / time.step_s:.0%})"
    if report.bottleneck:
        text += f"; the step is {report.bottleneck}"
    if report.bottleneck_link and time.exposed_communication_s:
        text += f", and the link that its exposed communication waits for is {report.bottleneck_link}"
    return text + "."


def agreement(pair: Pair) -> tuple[str, ...]:
    """How far the two reports are apart, and what makes them hard to compare."""
    if pair.measured is None:
        return ()
    joined = compare(pair.predicted, pair.measured)
    equal = sum(line.first == line.second for line in joined.components)
    same_place = joined.peak_at_first == joined.peak_at_second
    where = "at the same operation" if same_place else f"but at another operation ({joined.peak_at_second.phase} of {words(joined.peak_at_second.component)})"
    peak = "equals the measured one to the byte" if joined.peak.first == joined.peak.second else f"is {joined.peak.relative:+.3%} from the measured one"
    said = [f"Memory: the predicted peak {peak}, {where}; {equal} of {len(joined.components)} lines by component are equal to the byte."]
    devices = [report.provenance.device for report in pair.reports]
    step = joined.time[0]
    if devices[0] != devices[1]:
        said.append(f"Time cannot be compared: the prediction is for {devices[0]}, the measurement was made on {devices[1]}.")
    else:
        repeats = pair.measured.time.repeats_s
        spread = f" (repeats from {show_seconds(min(repeats))} to {show_seconds(max(repeats))})" if repeats else ""
        said.append(f"Time: the predicted step of {show_seconds(step.first)} is {step.relative:+.1%} from the measured {show_seconds(step.second)}{spread}.")
    if joined.different_plan_fields:
        said.append(f"Careful: the plans differ in {', '.join(joined.different_plan_fields)}.")
    if pair.predicted.model != pair.measured.model:
        said.append(f"Careful: the models differ: {pair.predicted.model} and {pair.measured.model}.")
    return tuple(said)
