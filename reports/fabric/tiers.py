"""The fabric's tiers with links coloured by their load in the all-to-all of a step."""

from matplotlib.figure import Figure

from fabrics.explain.drawing import tiers_figure
from fabrics.explain.explanation import busy
from fabrics.explain.walk import Walk
from reports.fabric.turning import Study
from simulator.records.step_report import CommunicationRow


def largest_exchange(study: Study) -> CommunicationRow | None:
    """The all-to-all of the step that carries most bytes a call."""
    exchanges = [row for row in study.report.communication if row.collective == "all-to-all"]
    return max(exchanges, key=lambda row: row.bytes_per_call, default=None)


def tiers(study: Study, exchange: CommunicationRow) -> Figure:
    """One expert-parallel group's exchange on the fabric as it is."""
    group = study.question.network.groups(exchange.name)[0]
    fabric = study.question.network.fabric
    return tiers_figure(fabric, busy(fabric, Walk(group, exchange.bytes_per_call / len(group))))
