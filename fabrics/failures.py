"""Which single failure costs most."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from configuration.errors import ConfigurationError
from fabrics.graph import Fabric


@dataclass(frozen=True)
class Failure:
    """What fails, and the time after it; infinite when it cuts ranks off."""

    name: str
    time_s: float


def candidates(fabric: Fabric) -> list[str]:
    """Switches that no accelerator hangs on, and links between switches, as ``Fabric.without`` names them."""
    graph = fabric.graph
    switches = {name for name, kind in graph.nodes(data="kind") if kind != "accelerator"}
    above = [name for name in graph if name in switches and switches.issuperset(graph.successors(name))]
    between = [(tail, head) for tail, head in graph.edges if tail in switches and head in switches]
    return [*above, *(f"{tail}:{head}" for tail, head in between if tail < head or not graph.has_edge(head, tail))]


def by_cost(fabric: Fabric, names: Iterable[str], time_s: Callable[[Fabric], float]) -> list[Failure]:
    """Every failure with the time that ``time_s`` gives for the fabric without it (a collective, a training step), the worst first."""
    found = []
    for name in names:
        try:
            found.append(Failure(name, time_s(fabric.without((name,)))))
        except ConfigurationError:
            found.append(Failure(name, float("inf")))
    return sorted(found, key=lambda failure: -failure.time_s)
