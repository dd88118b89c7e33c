"""How kernels reach the device: issued one by one, or as the graph of a whole step that the host launches once."""

from functools import lru_cache

from configuration.errors import ConfigurationError
from simulator.specs import Implementation
from simulator.specs.device import DeviceSpec, Overhead


class ById:
    """A device as a key: specifications hold dictionaries and cannot be hashed themselves."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.spec is self.spec


def launched(device: DeviceSpec, implementation: Implementation) -> DeviceSpec:
    """``device`` as the kernels of a step see it under ``implementation.launch``.

    In a graph the host issues no kernel, so that issues cost it nothing, and every launch overhead shrinks by what the device's
    ``graph_launch_overhead_s`` is below its ``launch_overhead_s``; without that constant it stays. Raises ConfigurationError where there are no graphs.
    """
    return device if implementation.launch == "eager" else _replayed(ById(device))


def first_issue_s(device: DeviceSpec, implementation: Implementation) -> float:
    """Seconds of the host before the first kernel that no kernel's own issue counts: the launch of the graph, taken to be as long as that of a kernel."""
    return device.host_overhead_s.value if implementation.launch == "graph" else 0.0


@lru_cache(maxsize=64)
def _replayed(device: ById) -> DeviceSpec:
    spec = device.spec
    if spec.host_and_device_are_one:
        raise ConfigurationError(f"plan.implementation.launch graph: {spec.name} runs kernels where they are issued and has no graphs (legal: eager)")
    issue = Overhead(value=0.0, origin="spec", reference="the host launches the graph of the step, not its kernels")
    own = spec.launch_overhead_s if spec.graph_launch_overhead_s is None else spec.graph_launch_overhead_s
    saved = spec.launch_overhead_s.value - own.value

    def smaller(overhead: Overhead | None) -> Overhead | None:
        return None if overhead is None else overhead.model_copy(update={"value": max(0.0, overhead.value - saved)})

    kernels = {kind: rate.model_copy(update={"launch_overhead_s": smaller(rate.launch_overhead_s)}) for kind, rate in spec.kernels.items()}
    changes = {
        "host_overhead_s": issue, "hook_overhead_s": None, "launch_overhead_s": own,
        "listed_launch_overhead_s": smaller(spec.listed_launch_overhead_s), "kernels": kernels,
    }  # fmt: skip
    return spec.model_copy(update=changes)
