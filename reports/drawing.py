"""Style shared by all figures: colours that colour-blind readers can tell apart, axes with units, SVG for the page and PNG beside it."""

import re
from collections.abc import Callable
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from reports.page import Picture
from simulator.units import show_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999",
)  # fmt: skip
"""Okabe and Ito, "Color Universal Design" (2008), and a grey."""

SERIES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":"), (ORANGE, "v", "-"), (SKY, "P", "--"), (BLACK, "X", "-."))
"""Colour, marker and line of the n-th series: never told apart by colour alone."""

WIDTH_INCHES = 10.2
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e0e0e0",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "hatch.linewidth": 0.6,
}


def picture(name: str, caption: str, draw: Callable[[Figure], None], height_inches: float = 4.0) -> Picture:
    """Let ``draw`` fill an empty figure and keep it as SVG and PNG; equal drawings give equal bytes."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure)
        return saved(name, caption, figure)


def saved(name: str, caption: str, figure: Figure) -> Picture:
    """A finished figure as SVG and PNG."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        png = BytesIO()
        figure.savefig(png, format="png", dpi=110)
        svg = StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(name, caption, _inline(svg.getvalue(), name, caption), png.getvalue())


def _inline(svg: str, name: str, caption: str) -> str:
    """The ``<svg>`` element alone, its ids made unique on the page, with a name for screen readers."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    element = element.replace("'DejaVu Sans'", "'DejaVu Sans', Arial, sans-serif")
    label = re.sub(r'[<>&"]', " ", caption)
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def bytes_unit(largest_bytes: float) -> tuple[float, str]:
    """Divisor and name of the unit (powers of ten) for an axis that reaches ``largest_bytes``."""
    return next(((scale, unit) for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if largest_bytes >= scale), (1.0, "B"))


def seconds_unit(largest_s: float) -> tuple[float, str]:
    """Divisor and name of the unit for an axis that reaches ``largest_s``."""
    return next(((scale, unit) for scale, unit in ((1.0, "s"), (1e-3, "ms")) if largest_s >= scale), (1e-6, "µs"))


def below(axes: "Axes", columns: int) -> None:
    """A legend under the figure of ``axes``, where it hides nothing."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def counts(axis: "Axis") -> None:
    """Make an axis, already logarithmic, one of counts: ticked at 1, 2 and 5 of every decade and labelled with k, M, G."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=15))
    axis.set_major_formatter(lambda value, _: show_count(value))
    axis.set_minor_locator(NullLocator())
