"""Predictions while one parameter of the fabric or of the plan is turned, and where the step becomes network-bound."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import exp, log

from configuration.errors import ConfigurationError
from configuration.overrides import Overrides
from configuration.spec import validated
from fabrics.loading import load_fabric
from reports.fabric.knobs import KNOBS, Knob
from simulator.network_explanation import Change, GroupUse, groups_used, what_if
from simulator.question import Question, ask
from simulator.records.step_report import StepReport
from simulator.specs import Plan

NETWORK_BOUND = "network-bound"
HALVINGS = 7
"""A crossing is told to 1/128 of the grid's step in the logarithm, finer than a figure can show."""
FEWEST = 2
"""Values of a knob below which turning it shows nothing."""

Predict = Callable[[Overrides], StepReport]


@dataclass(frozen=True)
class Turn:
    """One model's predictions over the values of one knob; ``crossing``: the value from which on the step is network-bound, if it starts or ceases to be.

    ``otherwise``: what holds the step back on the other side of the crossing.
    """

    knob: Knob
    now: float
    values: tuple[float, ...]
    reports: tuple[StepReport, ...]
    crossing: float | None
    otherwise: str = ""

    @property
    def always_bound(self) -> bool:
        """Network-bound at every value that was tried."""
        return all(network_bound(report) for report in self.reports)


@dataclass(frozen=True)
class Study:
    """One model on the fabric: as it is, and with each knob turned; ``left_out`` says which knobs do not apply and why; ``predict`` takes changes."""

    model: str
    question: Question
    report: StepReport
    groups: tuple[GroupUse, ...]
    turns: tuple[Turn, ...]
    left_out: tuple[str, ...]
    what_if: tuple[Change, ...]
    predict: Predict

    def turn(self, knob: Knob) -> Turn | None:
        """The predictions over a knob; None where it does not apply."""
        return next((turn for turn in self.turns if turn.knob == knob), None)


def network_bound(report: StepReport) -> bool:
    """Whether exposed communication is the largest part of the step."""
    return report.bottleneck == NETWORK_BOUND


def study(model: str, fabric: str, settings: Overrides) -> Study:
    """Turn every knob for one model. Raises ConfigurationError when model, plan and fabric do not go together as they are."""
    question = ask(model, fabric, settings=settings)
    predict = partial(_predict, question, fabric, settings)
    report = question.answer()
    turns, left_out = [], []
    for knob in KNOBS:
        now = knob.now(question)
        if now is None:
            owner = f"{question.network.fabric.spec.kind} fabrics have" if knob.of == "fabric" else f"{question.model.name} has"
            left_out.append(f"{knob.label}: {owner} no such parameter")
            continue
        turn = _turn(knob, now, partial(_at, predict, question, knob))
        if turn is None:
            left_out.append(f"{knob.label}: no other value goes with the rest of the fabric and the plan")
        else:
            turns.append(turn)
    changes = tuple(what_if(question, report))
    return Study(model, question, report, tuple(groups_used(question, report)), tuple(turns), tuple(left_out), changes, predict)


def _at(predict: Predict, question: Question, knob: Knob, value: float) -> StepReport:
    return predict(knob.change(question.network.fabric, value))


def _predict(question: Question, fabric: str, settings: Overrides, changes: Overrides) -> StepReport:
    """The step with fields of fabric and plan changed. Raises ConfigurationError where that cannot be."""
    network = question.network
    if "fabric" in changes:
        network = network.on(load_fabric(fabric, {**settings.get("fabric", {}), **changes["fabric"]}))
    if "plan" not in changes:
        return replace(question, network=network).answer()
    plan = validated(Plan, {**question.plan.model_dump(), **changes["plan"]}, "plan")
    plan.check_against(question.model)
    return replace(question, plan=plan, network=network.under(plan)).answer()


def _turn(knob: Knob, now: float, predict: Callable[[float], StepReport]) -> Turn | None:
    found: dict[float, StepReport] = {}
    for value in sorted({*knob.values, *([now] if now > 0 else [])}):
        try:
            found[value] = predict(value)
        except ConfigurationError:
            continue
    values, reports = tuple(found), tuple(found.values())
    if len(values) < FEWEST:
        return None
    crossing, otherwise = _crossing(knob, values, reports, predict)
    return Turn(knob, now, values, reports, crossing, otherwise)


def _crossing(knob: Knob, values: tuple[float, ...], reports: tuple[StepReport, ...], predict: Callable[[float], StepReport]) -> tuple[float | None, str]:
    """The first value, in the direction in which the knob hurts, at which the step is network-bound and was not before; and what bound it before."""
    order = list(range(len(values)))
    if not knob.more_is_worse:
        order.reverse()
    for before, after in pairwise(order):
        if not network_bound(reports[before]) and network_bound(reports[after]):
            if knob.whole:
                return values[after], reports[before].bottleneck
            return _bisected(values[before], values[after], reports[before].bottleneck, predict)
    return None, ""


def _bisected(free: float, bound: float, otherwise: str, predict: Callable[[float], StepReport]) -> tuple[float, str]:
    for _ in range(HALVINGS):
        middle = exp((log(free) + log(bound)) / 2)
        report = predict(middle)
        if network_bound(report):
            bound = middle
        else:
            free, otherwise = middle, report.bottleneck
    return bound, otherwise
