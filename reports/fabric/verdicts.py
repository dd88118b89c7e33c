"""What the fabric does to each model, in words."""

from reports.fabric.turning import Study, Turn, network_bound
from simulator.units import show_bytes, show_seconds

UNFELT = 0.01
"""A change of the step by less than this share is called no change worth naming."""


def verdict(study: Study) -> str:
    """One model: what holds its step back here, and from where on the network does."""
    report = study.report
    share = report.time.exposed_communication_s / report.time.step_s
    link = f", hottest link {report.bottleneck_link}" if report.bottleneck_link else ""
    step = f"{study.model} is {report.bottleneck} as it is: {show_seconds(report.time.step_s)} a step, {share:.0%} of it exposed communication{link}."
    said = [step, exposing(study)]
    crossed = [turn for turn in study.turns if turn.crossing is not None]
    always = [turn for turn in study.turns if turn.always_bound]
    never = [turn for turn in study.turns if turn.crossing is None and not turn.always_bound]
    if crossed:
        said.append(f"It is network-bound from {', '.join(map(crossing, crossed))}.")
    if always:
        said.append(f"It stays network-bound over all of {_ranges(always)}.")
    if never:
        said.append(f"Nowhere in {_ranges(never)} is it network-bound.")
    if report.fits is False and report.device_memory_bytes is not None:
        need = f"{show_bytes(report.memory.peak_allocated_bytes)} of {show_bytes(report.device_memory_bytes)}"
        said.append(f"It does not fit ({need} a rank): the times are those of a device with more memory.")
    return " ".join(filter(None, said))


def crossing(turn: Turn) -> str:
    """From which value of a knob on the step is network-bound; only of a turn that has a crossing."""
    assert turn.crossing is not None
    way = "upwards" if turn.knob.more_is_worse else "downwards"
    return f"{turn.knob.label} {turn.knob.show(turn.crossing)} {way} ({turn.otherwise} before)"


def _ranges(turns: list[Turn]) -> str:
    return ", ".join(f"{turn.knob.label} {turn.knob.show(turn.values[0])} to {turn.knob.show(turn.values[-1])}" for turn in turns)


def change(study: Study, name: str) -> str:
    """The step's time after one change of the fabric, against what it is now."""
    found = next((change for change in study.what_if if change.name == name), None)
    if found is None:
        return "–"
    if found.times is None:
        return "ranks are cut off"
    share = found.times - 1
    return f"{share:+.0%}" if abs(share) >= UNFELT else "under 1%"


def together(studies: list[Study]) -> str:
    """Which models the network holds back, in one sentence."""
    held = [study.model for study in studies if network_bound(study.report)]
    free = [f"{study.model} ({study.report.bottleneck})" for study in studies if not network_bound(study.report)]
    if not held:
        return f"The network holds back none of these models: {', '.join(free)}."
    rest = f"; it does not hold back {', '.join(free)}" if free else ""
    return f"The network holds back {', '.join(held)}{rest}."


def exposing(study: Study) -> str:
    """Which parallel group waits most for the network, and over what."""
    first = study.groups[0] if study.groups else None
    if first is None or first.exposed_share < UNFELT:
        return ""
    tier = max(first.tiers, key=lambda name: first.tiers[name])
    share = f"{first.exposed_share:.0%} of the step"
    return f"Most of it waits for groups of {first.ranks} ({first.group}, {share}), whose fullest links lead up to the {tier} tier."
