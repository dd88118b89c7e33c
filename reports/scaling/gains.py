"""What each doubling gained, and what each FLOP gained, in parameters and in tokens."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from reports.drawing import SERIES
from reports.scaling.settings import flops_unit
from reports.scaling.slopes import Slope, Variable


def draw(figure: Figure, found: Mapping[Variable, Sequence[Slope]]) -> None:
    """Left: nats per doubling with one standard error; right: nats per FLOP spent; both against the FLOPs of the larger run."""
    scale, unit = flops_unit(max(slope.high.flops for slopes in found.values() for slope in slopes))
    left, right = figure.subplots(1, 2)
    for (variable, slopes), (colour, marker, _) in zip(found.items(), SERIES, strict=False):
        flops = [slope.high.flops / scale for slope in slopes]
        left.errorbar(flops, [slope.gain for slope in slopes], yerr=[slope.error or 0.0 for slope in slopes], color=colour, marker=marker,
                      linestyle="none", capsize=3, label=f"twice the {variable}")  # fmt: skip
        paid = [(at, slope.gain_per_flop * scale) for at, slope in zip(flops, slopes, strict=True) if slope.gain_per_flop is not None]
        if paid:
            right.plot(*zip(*paid, strict=True), color=colour, marker=marker, linestyle="none", label=f"more {variable}")
    left.axhline(0, color="black", linewidth=0.8)
    left.set_ylabel("gain of a doubling (nats per token)")
    right.set_ylabel(f"gain of compute (nats per token and {unit})")
    gained = [slope.gain_per_flop * scale for slopes in found.values() for slope in slopes if slope.gain_per_flop]
    if all(gain > 0 for gain in gained):
        right.set_yscale("log")
    else:
        right.set_yscale("symlog", linthresh=min(map(abs, gained)))
        right.axhline(0, color="black", linewidth=0.8)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel(f"training compute of the larger run ({unit})")
        axes.legend(frameon=False)
