"""Which single failure of the fabric costs a training step most."""

from dataclasses import replace
from math import isfinite
from typing import Literal

from fabrics.failures import by_cost, candidates
from fabrics.graph import Fabric
from simulator.question import Question
from simulator.records.step_report import Record


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


def single_failures(question: Question) -> Failures:
    """Predict the step with each inner switch, and each link between switches, taken away in turn."""

    def step_s(fabric: Fabric) -> float:
        return replace(question, network=question.network.on(fabric)).answer().time.step_s

    healthy = question.network.fabric
    healthy_s = step_s(healthy)
    found = by_cost(healthy, candidates(healthy), step_s)
    return Failures(
        healthy_step_s=healthy_s,
        failures=[
            Failure(name=failure.name, step_s=failure.time_s, slowdown=failure.time_s / healthy_s)
            if isfinite(failure.time_s)
            else Failure(name=failure.name, step_s=None, slowdown=None)
            for failure in found
        ],
    )
