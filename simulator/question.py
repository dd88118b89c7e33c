"""From what the user names on the command line to what ``predict`` takes; every default is recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configuration.errors import ConfigurationError
from fabrics.loading import load_fabric
from fabrics.placement import faults
from simulator.predict import predict
from simulator.records.step_report import StepReport
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from simulator.specs.device import DeviceSpec
from simulator.specs.presets import DEVICES, Default, load_expert_load
from simulator.time.communication import Network

UNIFORM = "uniform"
KINDS = ("model", "plan", "device", "fabric", "load")


@dataclass(frozen=True)
class Question:
    """One configuration, checked."""

    model: ModelSpec
    plan: Plan
    device: DeviceSpec
    network: Network
    defaults: list[Default]

    def answer(self) -> StepReport:
        """The predicted StepReport."""
        return predict(self.model, self.plan, self.device, self.network, self.defaults)


def ask(
    model: str,
    fabric: str,
    plan: str | None = None,
    device: str | None = None,
    gpus: int | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    measured_ranks: int | None = None,
    fail: Sequence[str] = (),
    slow: Sequence[str] = (),
    load: str | None = None,
) -> Question:
    """Load and check a configuration. ``settings``: overrides by specification; ``measured_ranks``: ranks of the report to compare with;
    ``fail`` and ``slow``: faults of the fabric as on the command line; ``load``: how tokens spread over the experts.

    Raises ConfigurationError in one line.
    """
    overrides = settings or {}
    defaults: list[Default] = []
    shapes = load_model(model, overrides.get("model"))
    graph = faults(load_fabric(fabric, dict(overrides.get("fabric", {}))), list(fail), list(slow))
    if device is None:
        device = graph.spec.device
        defaults.append(Default("device", device, f"endpoints of {graph.spec.name}"))
    chip = DEVICES.load(device, overrides.get("device"))
    if gpus is not None and gpus > graph.size:
        raise ConfigurationError(f"--gpus {gpus}: fabric {graph.spec.name} has {graph.size} endpoints (legal: 1 to {graph.size})")
    given = {"--gpus": gpus, "the report compared with": measured_ranks, "every endpoint of the fabric": graph.size}
    reason, ranks = next((reason, count) for reason, count in given.items() if count)
    steps, used = load_plan(shapes, plan, overrides.get("plan"), ranks=ranks, ranks_reason=reason, precision=chip.default_precision)
    if gpus is not None and steps.ranks != gpus:
        raise ConfigurationError(f"--gpus {gpus}: the plan says ranks {steps.ranks}; give one of the two")
    if steps.ranks > graph.size:
        raise ConfigurationError(f"plan.ranks ({steps.ranks}): fabric {graph.spec.name} has {graph.size} endpoints (legal: 1 to {graph.size})")
    spread = load_expert_load(load or UNIFORM, overrides.get("load"))
    spread.check_against(shapes, steps)
    if shapes.expert_counts and load is None and "load" not in overrides:
        used.append(Default("load", UNIFORM, "every expert gets the same number of tokens"))
    return Question(shapes, steps, chip, Network(graph, steps, spread), defaults + used)
