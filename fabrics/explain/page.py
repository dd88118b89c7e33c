"""The explanation as one offline HTML page: drawings are SVG inside the file."""

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from configuration.files import write_atomically
from fabrics.explain.drawing import hashing_figure, knee_figure, tiers_figure
from fabrics.explain.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_page(explanation: Explanation, path: Path) -> None:
    """Write the page, whole or not at all."""
    from jinja2 import Environment, FileSystemLoader

    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html.j2")
    write_atomically(path, template.render(fabric=explanation.fabric, sections=explanation.sections, drawings=_drawings(explanation)))


def _drawings(explanation: Explanation) -> dict[str, str]:
    figures = {"tiers": tiers_figure(explanation.fabric, explanation.busy)}
    if len(explanation.walked.ranks) > 1:
        figures["knee"] = knee_figure(explanation.walked, explanation.fabric)
    if explanation.hashed is not None:
        figures["hashing"] = hashing_figure(explanation.hashed)
    return {name: _svg(figure) for name, figure in figures.items()}


def _svg(figure: "Figure") -> str:
    import matplotlib

    text = StringIO()
    # Text stays text, and the same figure gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fabrics"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
