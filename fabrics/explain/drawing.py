"""Drawings of a fabric with matplotlib: tiers with links coloured by load."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configuration.files import write_atomically
from fabrics.cost import cost
from fabrics.explain.hashing import Hashing
from fabrics.explain.paths import pair_kinds
from fabrics.explain.walk import Walk
from fabrics.graph import Fabric
from fabrics.network import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCELERATORS_DRAWN = 64
SMALLEST_TEXT = 8
SHORT_NAME, LONG_NAME = 900, 2000
"""Area of a switch that its name fits into, in square points."""


def tiers_figure(fabric: Fabric, busy: FloatArray | None) -> "Figure":
    """Switches in tiers over the accelerators; a link's colour is its busier direction's share of the transfer time, its width grows with its rate."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    graph = fabric.graph
    drawn = _drawn(fabric)
    at = _positions(fabric, drawn)
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["cividis_r"]
    load = dict(zip(fabric.links, busy.tolist(), strict=True)) if busy is not None else {}
    fastest = max(graph.edges[tail, head]["bytes_per_s"] for tail, head in graph.edges)
    for tail, head in graph.edges:
        if tail in at and head in at and (tail < head or not graph.has_edge(head, tail)):
            share = max(load.get((tail, head), 0.0), load.get((head, tail), 0.0))
            width = 0.6 + 2.4 * (graph.edges[tail, head]["bytes_per_s"] / fastest) ** 0.5
            axes.plot(*zip(at[tail], at[head], strict=True), color=colours(share) if load else "#95a5a6", linewidth=width, zorder=1)
    for name, (x, y) in at.items():
        kind = graph.nodes[name]["kind"]
        area = 60 if kind == "accelerator" else SHORT_NAME if len(name) <= len("leaf000") else LONG_NAME
        axes.scatter([x], [y], s=area, marker="o" if kind == "accelerator" else "s", color="#34495e", zorder=2)
        if kind != "accelerator" or len(drawn) <= 40:
            below = kind == "accelerator"
            colour = "black" if below else "white"
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(0, -14 if below else -3), ha="center", fontsize=SMALLEST_TEXT, color=colour)
    if load:
        figure.colorbar(ScalarMappable(Normalize(0, 1), colours), ax=axes, label="busy share of the transfer", shrink=0.7)
    hidden = len(graph) - len(at)
    axes.set_title(f"{fabric.spec.name}: links by load in one all-to-all" + (f" ({hidden:,} nodes not drawn)" if hidden else ""))
    axes.axis("off")
    axes.margins(0.08)
    return figure


def _drawn(fabric: Fabric) -> set[str]:
    """All nodes of a small fabric; of a large one the first accelerators and what lies between the first and one partner of each kind."""
    if fabric.size <= ACCELERATORS_DRAWN:
        return set(fabric.graph)
    first = fabric.endpoints[: ACCELERATORS_DRAWN // 4]
    names = {*first, *(other for name in first for other in fabric.graph.successors(name))}
    for partner, _ in pair_kinds(fabric):
        names |= fabric.routes.between(0, fabric.routes.toward(partner))
    return names


def _positions(fabric: Fabric, drawn: set[str]) -> dict[str, tuple[float, float]]:
    """Tiers as rows, evenly spread; nodes with a position of their own (a torus) on its first two axes."""
    graph = fabric.graph
    rows: dict[int, list[str]] = {}
    at: dict[str, tuple[float, float]] = {}
    for name, data in graph.nodes(data=True):
        if name not in drawn:
            continue
        place: Any = data.get("position")
        if place is not None:
            skew = 0.22 * sum(place[2:])
            at[name] = (place[0] + skew, (place[1] if len(place) > 1 else 0) + skew)
        else:
            rows.setdefault(data["tier"], []).append(name)
    for height, tier in enumerate(sorted(rows)):
        for i, name in enumerate(rows[tier]):
            at[name] = ((i + 0.5) / len(rows[tier]) * 10, height * 1.6)
    return at


def write_png(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomically(path, buffer.getvalue())


def knee_figure(walk: Walk, fabric: Fabric) -> "Figure":
    """Time of the all-to-all against its size, with its latency and its transfer."""
    from matplotlib.figure import Figure

    sizes = np.logspace(2, 9, 120)
    costs = cost(fabric, "all-to-all", [walk.ranks], sizes * len(walk.ranks))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for values, label, style in ((costs.time_s, "time", "-"), (costs.latency_s, "latency", "--"), (costs.transfer_s, "transfer", ":")):
        axes.loglog(sizes, values * 1e6, style, label=label)
    axes.axvline(walk.bytes_per_pair, color="grey", linewidth=0.8)
    axes.set_xlabel("bytes per pair")
    axes.set_ylabel("µs")
    axes.set_title(f"All-to-all of {len(walk.ranks)} ranks: latency rules left, bandwidth right")
    axes.legend()
    return figure


def hashing_figure(found: Hashing) -> "Figure":
    """Histogram of the transfer over ECMP seeds, one and eight flows per pair, beside even splitting."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    flows = (min(found.hashed_s), max(found.hashed_s))
    axes.hist([found.hashed_s[count] * 1e6 for count in flows], bins=20, label=[f"{count} flow(s) per pair" for count in flows])
    axes.axvline(found.ideal_s * 1e6, color="black", linestyle="--", label="split evenly")
    axes.set_xlabel("transfer, µs")
    axes.set_ylabel("seeds")
    axes.set_title("What hash collisions cost")
    axes.legend()
    return figure
