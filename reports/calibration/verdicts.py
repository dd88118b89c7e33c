"""How wrong the profile is, in words."""

from calibration.device.validation import Validation


def verdicts(found: Validation, device_machine: str, machines: set[str]) -> tuple[str, ...]:
    """Median and worst errors, what noise there is to begin with, and how the simplest model does."""
    worst = max(found.steps, key=lambda step: abs(step.step))
    phases = ", ".join(f"{phase} {error:.1%}" for phase, error in found.median_phases.items())
    said = [
        f"The median error of {len(found.steps)} steps is {found.median_step:.1%}, the worst {abs(worst.step):.1%} ({worst.name}); "
        f"by phase the medians are {phases}.",
        f"The longest step lasts {found.span:.1f} times the shortest. Repeats of one step spread by ±{found.median_half_spread:.1%} (median): "
        "agreement closer than that is luck.",
    ]
    inside = sum(abs(step.step) <= 0.10 for step in found.steps)
    said.append(f"{inside} of {len(found.steps)} steps are predicted within 10 %.")
    if found.median_single_rate is not None and found.advantage is not None:
        single = f"{found.median_single_rate:.1%} (median), {found.advantage:.1f} times the profile's error"
        said.append(f"One FLOP rate, fitted to the measurements that the profile was fitted to, is off by {single}.")
    elsewhere = sorted(machine for machine in machines if machine and not device_machine.startswith(machine))
    if device_machine and elsewhere:
        said.append(f"Careful: the profile was fitted on {device_machine}, steps were measured on {', '.join(elsewhere)}.")
    return tuple(said)
