"""What a fit is made from: measured steps and tables of kernels, joined into observations and an origin."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.device.observations import Observation, step_observations
from calibration.device.probes import Probes
from calibration.device.profile import Origin
from calibration.device.reports import MeasuredStep
from configuration.errors import ConfigurationError
from simulator.components import Kind


@dataclass(frozen=True)
class Sources:
    """Observations of all files; ``own_launches``: kinds timed alone, whose launches can be told."""

    observations: list[Observation]
    own_launches: frozenset[Kind]
    origin: Origin
    left_out: dict[str, str]


def gather(steps: Sequence[MeasuredStep], tables: Sequence[Probes], name: str, date: str) -> Sources:
    """Join measurements of one machine. Raises ConfigurationError when there are none, or of several machines."""
    if not steps and not tables:
        raise ConfigurationError("fit: nothing to fit: give measured StepReports or --probes")
    machines = sorted({_machine(step) for step in steps} | {table.device for table in tables})
    if len(machines) > 1:
        raise ConfigurationError(f"fit: measurements of several machines ({'; '.join(machines)}); fit one profile for each")
    observations = [observation for step in steps for observation in step_observations(step.report, step.model, step.plan, step.name)]
    observations += [observation for table in tables for observation in table.observations]
    timed_alone = {quantity.kind for table in tables for observation in table.observations for quantity in observation.work if quantity.kind is not None}
    left_out = {kind: why for table in tables for kind, why in table.left_out.items()}
    counts = [f"{len(steps)} measured steps"] * bool(steps) + [f"{sum(len(table.observations) for table in tables)} kernel timings"] * bool(tables)
    sorts = ["measured steps"] * bool(steps) + ["kernel timings"] * bool(tables)
    sources = [step.report.provenance.versions for step in steps] + [table.versions for table in tables]
    versions = {program: version for found in sources for program, version in found.items() if program in ("torch", "cuda")}
    where = f"{machines[0]}, {', '.join(f'{program} {version}' for program, version in versions.items())}, {date}"
    memory_bytes = next((table.memory_bytes for table in tables if table.memory_bytes), None)
    origin = Origin(
        name=name,
        source=f"our {' and '.join(counts)} on {where}" + ("; memory as the device reports it" if memory_bytes else ""),
        reference=f"our {' and '.join(sorts)} on {where}",
        machine=machines[0],
        host_and_device_are_one=bool(steps) and steps[0].report.provenance.device == "cpu",
        memory_bytes=memory_bytes,
        host_s=_host_of_kernels(tables),
        graph_s=next((table.graph_s for table in tables if table.graph_s is not None), None),
    )
    return Sources(observations, frozenset(timed_alone - {Kind.POINTWISE}), origin, left_out)


def _machine(step: MeasuredStep) -> str:
    """A processor with its threads, or the accelerator's name."""
    provenance = step.report.provenance
    if provenance.device != "cpu":
        return provenance.device
    return f"{provenance.machine}, {provenance.threads} {'thread' if provenance.threads == 1 else 'threads'}"


def _host_of_kernels(tables: Sequence[Probes]) -> dict[str, float]:
    """Host time of calls that are one kernel each: a view launches none, and linear layers with autograd launch several."""
    return {name: seconds for table in tables for name, seconds in table.host_s.items() if name in ("add_", "mm", "silu", "rms_norm")}
