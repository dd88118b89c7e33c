"""What the network does to a step: which parallel group uses which tier and how much of the step it exposes, and what other fabrics would change."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from fabrics.explain.what_if import changed_fabrics
from fabrics.failures import by_cost, candidates
from fabrics.graph import Fabric
from fabrics.topologies.clos import Clos
from simulator.question import Question
from simulator.records.step_report import CommunicationRow, Record, StepReport
from simulator.specs import Plan

NAMES = {
    "expert": "expert parallel",
    "tensor": "tensor parallel",
    "neighbours": "neighbouring stages",
    "ends": "first and last stage",
    "stage": "stage",
    "all": "all ranks",
    "data": "data parallel",
    "slice_data": "data parallel of slices",
    "expert_data": "data parallel of experts",
    "replica": "replicas",
    "slice_replica": "replicas of slices",
    "expert_replica": "replicas of experts",
}


class GroupUse(Record):
    """One kind of parallel group. ``tiers``: share of its largest collective's transfer that the busiest link up to each kind of switch is busy.

    Bytes are what one rank sends in a step as the collectives count them; seconds are of one step.
    """

    group: str
    groups: int
    ranks: int
    layout: str
    collectives: list[str]
    bytes_per_step: float
    tiers: dict[str, float]
    time_s: float
    latency_s: float
    exposed_s: float
    exposed_share: float
    bottleneck: str


class Change(Record):
    """The step after one change; seconds are None where the ranks can no longer reach each other."""

    name: str
    step_s: float | None
    exposed_s: float | None
    times: float | None


class NetworkExplanation(Record):
    """Everything that the network does to one step. ``failures``: single failures, the worst first; None when they were not asked for.
    ``notes``: what the prediction says of itself.
    """

    schema_version: Literal[1] = 1
    model: str
    fabric: str
    step_s: float
    exposed_s: float
    bottleneck: str
    groups: list[GroupUse]
    what_if: list[Change]
    failures: list[Change] | None
    notes: list[str]


def explain_network(question: Question, *, worst_failure: bool = False) -> NetworkExplanation:
    """Explain the network's part of a prediction; ``worst_failure`` predicts the step under every single failure too."""
    report = question.answer()
    return NetworkExplanation(
        model=report.model,
        fabric=report.fabric,
        step_s=report.time.step_s,
        exposed_s=report.time.exposed_communication_s,
        bottleneck=report.bottleneck,
        groups=groups_used(question, report),
        what_if=what_if(question, report),
        failures=single_failures(question, report) if worst_failure else None,
        notes=report.provenance.notes,
    )


def groups_used(question: Question, report: StepReport) -> list[GroupUse]:
    """One entry for each kind of group that communicates, the one that exposes most first."""
    names = dict.fromkeys(row.name for row in report.communication)
    used = [_use(question, report, name, [row for row in report.communication if row.name == name]) for name in names]
    return sorted(used, key=lambda use: -use.exposed_s)


def _use(question: Question, report: StepReport, name: str, rows: list[CommunicationRow]) -> GroupUse:
    placement = question.network.groups(name)
    largest = max(rows, key=lambda row: row.time_s - row.latency_s)
    apart = placement[0][1] - placement[0][0]
    exposed_s = sum(row.exposed_s for row in rows)
    tiers: dict[str, float] = {}
    for call in question.network.calls(largest.collective, name):
        for tier, share in question.network.prices(call).cost([largest.bytes_per_call]).busy_by_tier().items():
            tiers[tier] = max(share, tiers.get(tier, 0.0))
    return GroupUse(
        group=NAMES.get(name, name),
        groups=len(placement),
        ranks=len(placement[0]),
        layout="neighbours" if apart == 1 else f"every {apart}th rank",
        collectives=sorted({row.collective for row in rows}),
        bytes_per_step=sum(row.calls * row.bytes_per_call for row in rows),
        tiers=tiers,
        time_s=sum(row.time_s for row in rows),
        latency_s=sum(row.latency_s for row in rows),
        exposed_s=exposed_s,
        exposed_share=exposed_s / report.time.step_s,
        bottleneck=largest.bottleneck,
    )


def what_if(question: Question, report: StepReport) -> list[Change]:
    """The step on changed fabrics, and with expert parallelism confined to a node or to what hangs on one leaf."""
    changes = []
    for name, fabric in changed_fabrics(question.network.fabric):
        after = None if fabric is None else replace(question, network=question.network.on(fabric)).answer()
        changes.append(_change(name, report, after))
    for name, plan in _confined(question):
        changes.append(_change(name, report, replace(question, plan=plan, network=question.network.under(plan)).answer()))
    return changes


def _confined(question: Question) -> Iterator[tuple[str, Plan]]:
    fabric, plan = question.network.fabric, question.plan
    node = int((fabric.domains == fabric.domains[0]).sum())
    widths = {"node": node}
    if isinstance(fabric.spec, Clos):
        widths["leaf"] = fabric.spec.hosts_per_leaf * fabric.spec.accelerators_per_node
    for place, ranks in widths.items():
        ep = ranks // plan.etp
        if 1 < ranks == ep * plan.etp and ep < plan.ep and plan.ep % ep == 0 and (place == "node" or ranks != node):
            yield f"expert parallelism confined to a {place} (ep {ep})", plan.model_copy(update={"ep": ep})


def _change(name: str, before: StepReport, after: StepReport | None) -> Change:
    if after is None:
        return Change(name=name, step_s=None, exposed_s=None, times=None)
    time = after.time
    return Change(name=name, step_s=time.step_s, exposed_s=time.exposed_communication_s, times=time.step_s / before.time.step_s)


def single_failures(question: Question, report: StepReport) -> list[Change]:
    """The step with each inner switch, and each link between switches, taken away in turn."""

    reports: dict[tuple[str, ...], StepReport] = {}

    def step_s(fabric: Fabric) -> float:
        reports[fabric.failed] = replace(question, network=question.network.on(fabric)).answer()
        return reports[fabric.failed].time.step_s

    healthy = question.network.fabric
    return [_change(failure.name, report, reports.get((*healthy.failed, failure.name))) for failure in by_cost(healthy, candidates(healthy), step_s)]
