"""One or two StepReports as what the figures and tables of the step page draw."""

from dataclasses import dataclass

from simulator.components import Component, Phase, Role
from simulator.records.step_report import StepReport

ROLE_NAMES = {Role.OPTIMIZER_STATE: "Adam states"}


@dataclass(frozen=True)
class Pair:
    """A report, or a prediction with its measurement; in this order they are drawn side by side."""

    predicted: StepReport
    measured: StepReport | None = None

    @property
    def reports(self) -> tuple[StepReport, ...]:
        """What there is, the prediction first."""
        return (self.predicted,) if self.measured is None else (self.predicted, self.measured)


def role_name(role: Role) -> str:
    """How pages call a category of memory."""
    return ROLE_NAMES.get(role, role.value)


def words(name: str) -> str:
    """A name of the record as words: ``attention_output`` is "attention output"."""
    return name.replace("_", " ")


def activations_by_component(report: StepReport) -> dict[Component, int]:
    """Bytes of kept activations by component, only those that keep any."""
    return {row.component: row.activations_bytes for row in report.memory.components if row.activations_bytes}


def seconds_by_component(report: StepReport) -> dict[Component, dict[Phase, float]]:
    """Seconds by component and phase."""
    found: dict[Component, dict[Phase, float]] = {}
    for row in report.time.rows:
        phases = found.setdefault(row.component, {})
        phases[row.phase] = phases.get(row.phase, 0.0) + row.time_s
    return found
