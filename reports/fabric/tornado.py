"""How much the step changes when the fabric does, a bar a model and change, the largest change first."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from reports.drawing import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, below
from reports.fabric.turning import Study

LOOKS = ((BLUE, ""), (VERMILLION, "///"), (GREEN, "..."), (ORANGE, "xx"), (SKY, "\\\\"), (PURPLE, "++"))
HEIGHT = 0.8


def names(studies: Sequence[Study]) -> list[str]:
    """Changes of any model, the one that changes a step most first."""
    found: dict[str, float] = {}
    for each in studies:
        for change in each.what_if:
            if change.times is not None:
                found[change.name] = max(found.get(change.name, 0.0), abs(change.times - 1))
    return sorted(found, key=lambda name: -found[name])


def draw(figure: Figure, studies: Sequence[Study]) -> None:
    """Change of the step's time in per cent."""
    axes = figure.subplots()
    shown = names(studies)
    thick = HEIGHT / len(studies)
    for place, (study, (colour, hatch)) in enumerate(zip(studies, LOOKS, strict=False)):
        times = {change.name: change.times for change in study.what_if if change.times is not None}
        rows = [row for row, name in enumerate(shown) if name in times]
        changes = [100 * (times[shown[row]] - 1) for row in rows]
        at = [row - HEIGHT / 2 + (place + 0.5) * thick for row in rows]
        bars = axes.barh(at, changes, thick * 0.9, color=colour, hatch=hatch, edgecolor="white", label=study.model)
        axes.bar_label(bars, [f"{change:+.0f}" if abs(change) >= 0.5 else "0" for change in changes], padding=2, fontsize=8)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("change of the step's time (%)")
    below(axes, len(studies))
