"""Puts the page about a device profile together."""

from functools import partial
from pathlib import Path

from calibration.device.reports import in_quiet_time, load_steps
from calibration.device.validation import validate
from reports import provenance
from reports.calibration import predicted_measured, residuals, tables
from reports.calibration.verdicts import verdicts
from reports.drawing import picture
from reports.page import Page, Section
from simulator.specs.presets import DEVICES

LIMITS = (
    "Steps that the profile was fitted to are no test of it: give measurements that it has not seen.",
    "Predictions here are for one process on one device: no network is in them.",
    "Measured seconds are multiplied by the yardstick's rate over its best rate (column yardstick): right if other work slowed both alike.",
    "The time of a step on a shared machine varies; the spread of the repeats is what was seen while measuring, not over days.",
)


def build(device: str, reports: list[Path], fitted_on: list[Path], *, raw: bool) -> Page:
    """Predict every measured step with the profile and draw the errors.

    Unless ``raw``, measured seconds are those of a quiet machine, as ``calibration validate`` takes them. Raises ConfigurationError in one line.
    """
    profile = DEVICES.load(device)
    steps, fitted = load_steps(reports), load_steps(fitted_on)
    if not raw:
        steps, fitted = in_quiet_time(steps, beside=fitted), in_quiet_time(fitted, beside=steps)
    found = validate(profile, steps, fitted)
    machines = {step.report.provenance.machine for step in steps}
    scatter = picture("predicted_measured", "Predicted against measured step time.", partial(predicted_measured.draw, found=found), 5.6)
    rows = picture("residuals", "Errors of the step and its phases.", partial(residuals.draw, found=found), 1.8 + 0.36 * len(found.steps))
    seen = sorted({step.path for step in steps} & {step.path for step in fitted})
    overlap = (f"Careful: {len(seen)} of the steps are among those that it was fitted to, {seen[0].name} for one.",) if seen else ()
    files = [step.path for step in (*steps, *fitted)]
    return Page(
        name="calibration",
        title="How wrong is this profile?",
        subject=f"{profile.name}: {profile.source}",
        verdicts=(*verdicts(found, profile.machine, machines), *overlap),
        sections=(Section("Step time", (), (scatter, rows, tables.steps(found))), Section("The profile", (), (tables.constants(profile),))),
        provenance=(
            *provenance.of_page([DEVICES.path(device), *dict.fromkeys(files)]),
            ("Measured on", ", ".join(sorted(machines))),
        ),
        limits=LIMITS,
    )
