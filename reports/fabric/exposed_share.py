"""Share of the step that waits for the network, all models together, one panel a parameter."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from reports.drawing import SERIES, below
from reports.fabric.knobs import Knob
from reports.fabric.step_time import logarithmic
from reports.fabric.turning import Study


def draw(figure: Figure, studies: Sequence[Study], knobs: Sequence[Knob]) -> None:
    """Exposed communication over step time in per cent."""
    count = len(knobs)
    columns = min(2, count)
    panels = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=True).ravel()
    for spare in panels[count:]:
        spare.remove()
    for knob, axes in zip(knobs, panels[:count], strict=True):
        told: set[float] = set()
        now: dict[float, None] = {}
        for study, (colour, marker, line) in zip(studies, SERIES, strict=False):
            turn = study.turn(knob)
            if turn is None:
                continue
            x = [value * knob.scale for value in turn.values]
            shares = [100 * report.time.exposed_communication_s / report.time.step_s for report in turn.reports]
            axes.plot(x, shares, color=colour, marker=marker, linestyle=line, markersize=5, label=study.model)
            told |= set(x)
            now[turn.now * knob.scale] = None
        logarithmic(axes, sorted(told))
        for at in now:
            axes.axvline(at, color="black", linestyle=":", linewidth=1.3, label="as it is" if at == next(iter(now)) else None)
        axes.set_ylim(0, 100)
        axes.set_xlabel(knob.axis)
        axes.set_ylabel("exposed communication (% of step)")
    below(panels[0], 5)
