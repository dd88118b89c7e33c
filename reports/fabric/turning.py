"""Predictions while one parameter of the fabric is turned, and where the step becomes network-bound."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import exp, log

from configuration.errors import ConfigurationError
from configuration.overrides import Overrides
from fabrics.loading import load_fabric
from reports.fabric.knobs import KNOBS, Knob
from simulator.question import Question, ask
from simulator.records.step_report import StepReport

NETWORK_BOUND = "network-bound"
HALVINGS = 7
"""A crossing is told to 1/128 of the grid's step in the logarithm, finer than a figure can show."""


@dataclass(frozen=True)
class Turn:
    """One model's predictions over the values of one knob; ``crossing``: the value from which on the step is network-bound, if it starts or ceases to be."""

    knob: Knob
    now: float
    values: tuple[float, ...]
    reports: tuple[StepReport, ...]
    crossing: float | None

    @property
    def always_bound(self) -> bool:
        """Network-bound at every value that was tried."""
        return all(network_bound(report) for report in self.reports)


@dataclass(frozen=True)
class Study:
    """One model on the fabric: as it is, and with each knob turned; ``left_out`` says which knobs do not apply and why."""

    model: str
    question: Question
    report: StepReport
    turns: tuple[Turn, ...]
    left_out: tuple[str, ...]
    what_if: dict[str, float]


def network_bound(report: StepReport) -> bool:
    """Whether exposed communication is the largest part of the step."""
    return report.bottleneck == NETWORK_BOUND


def study(model: str, fabric: str, settings: Overrides) -> Study:
    """Turn every knob for one model. Raises ConfigurationError when model, plan and fabric do not go together as they are."""

    question = ask(model, fabric, settings=settings)

    def predict(changes: dict[str, float | int]) -> StepReport:
        changed = load_fabric(fabric, {**settings.get("fabric", {}), **changes})
        return replace(question, network=question.network.on(changed)).answer()

    report = question.answer()
    turns, left_out = [], []
    for knob in KNOBS:
        now = knob.now(question.network.fabric)
        if now is None:
            left_out.append(f"{knob.label}: {question.network.fabric.spec.kind} fabrics have no such parameter")
            continue
        try:
            turns.append(_turn(knob, now, partial(_predict_at, predict, knob)))
        except ConfigurationError as error:
            left_out.append(f"{knob.label}: {error}")
    return Study(model, question, report, tuple(turns), tuple(left_out), _what_if(turns, predict))


def _predict_at(predict: Callable[[dict[str, float | int]], StepReport], knob: Knob, value: float) -> StepReport:
    return predict({knob.field: knob.setting(value)})


def _turn(knob: Knob, now: float, predict: Callable[[float], StepReport]) -> Turn:
    values = tuple(sorted({*knob.values, now}))
    reports = tuple(predict(value) for value in values)
    return Turn(knob, now, values, reports, _crossing(knob, values, reports, predict))


def _crossing(knob: Knob, values: tuple[float, ...], reports: tuple[StepReport, ...], predict: Callable[[float], StepReport]) -> float | None:
    """The first value, in the direction in which the knob hurts, at which the step is network-bound and was not before."""
    bound = [network_bound(report) for report in reports]
    order = list(range(len(values)))
    if not knob.more_is_worse:
        order.reverse()
    for before, after in pairwise(order):
        if not bound[before] and bound[after]:
            return values[after] if knob.whole else _bisected(values[before], values[after], predict)
    return None


def _bisected(free: float, bound: float, predict: Callable[[float], StepReport]) -> float:
    for _ in range(HALVINGS):
        middle = exp((log(free) + log(bound)) / 2)
        if network_bound(predict(middle)):
            bound = middle
        else:
            free = middle
    return bound


def _what_if(turns: list[Turn], predict: Callable[[dict[str, float | int]], StepReport]) -> dict[str, float]:
    """Seconds of a step after one change of the fabric, for the changes that apply to it."""
    changes: dict[str, dict[str, float | int]] = {}
    for turn in turns:
        if turn.knob.field == "oversubscription" and turn.now != 1:
            changes["no oversubscription"] = {"oversubscription": 1}
        if turn.knob.field == "oversubscription":
            changes["twice the oversubscription"] = {"oversubscription": 2 * turn.now}
        if turn.knob.field == "link_bytes_per_s":
            changes["links of twice the rate"] = {"link_bytes_per_s": 2 * turn.now}
            changes["links of half the rate"] = {"link_bytes_per_s": turn.now / 2}
        if turn.knob.field == "hop_latency_s":
            changes["ten times the latency per link"] = {"hop_latency_s": 10 * turn.now}
        if turn.knob.field == "spines":
            changes["twice the spines"] = {"spines": round(2 * turn.now)}
    found = {}
    for name, change in changes.items():
        try:
            found[name] = predict(change).time.step_s
        except ConfigurationError:
            continue
    return found
