"""Which single failure of the fabric costs a training step most."""

from collections.abc import Callable
from typing import Literal

from configuration.errors import ConfigurationError
from fabrics.graph import Fabric
from simulator.question import Question
from simulator.records.step_report import Record
from simulator.time.communication import Network


class Failure(Record):
    """One switch or link that is down. ``step_s`` is None where the ranks can no longer reach each other."""

    name: str
    step_s: float | None
    slowdown: float | None


class Failures(Record):
    """The step on the healthy fabric and under every single failure, worst first."""

    schema_version: Literal[1] = 1
    healthy_step_s: float
    failures: list[Failure]


def single_failures(question: Question, progress: Callable[[int, int], None] | None = None) -> Failures:
    """Predict the step with each switch, and each link between switches, taken away in turn."""
    fabric = question.network.fabric
    healthy = question.answer().time.step_s
    names = candidates(fabric)
    found = []
    for position, name in enumerate(names):
        if progress is not None:
            progress(position, len(names))
        found.append(_with(question, fabric, name, healthy))
    return Failures(healthy_step_s=healthy, failures=sorted(found, key=lambda failure: -(failure.step_s or float("inf"))))


def candidates(fabric: Fabric) -> list[str]:
    """Switches, and links between two switches, as ``--fail`` names them."""
    endpoints = set(fabric.endpoints)
    switches = [node for node in fabric.graph.nodes if node not in endpoints]
    links = sorted({":".join(sorted(edge)) for edge in fabric.graph.edges if not endpoints & set(edge)})
    return [*switches, *links]


def _with(question: Question, fabric: Fabric, name: str, healthy_s: float) -> Failure:
    try:
        degraded = fabric.without((name,))
    except ConfigurationError:
        return Failure(name=name, step_s=None, slowdown=None)
    answer = Question(question.model, question.plan, question.device, Network(degraded, question.plan), []).answer()
    return Failure(name=name, step_s=answer.time.step_s, slowdown=answer.time.step_s / healthy_s)
