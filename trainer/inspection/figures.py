"""Figures as PNG bytes."""

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from trainer.inspection.attention import AttentionMaps
from trainer.inspection.expert_load import LayerLoad
from trainer.inspection.loss_by_position import LossByPosition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 4.4
ANNOTATED_EXPERTS = 32
"""With more experts the numbers would not fit into their cells."""


def attention_figure(maps: AttentionMaps, layer: int) -> bytes:
    """All heads of one layer in a grid, each a map of who looks at whom."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    weights_HSS = maps.weights_LHSS[layer]
    heads = len(weights_HSS)
    columns = math.ceil(math.sqrt(heads))
    rows = math.ceil(heads / columns)
    figure = Figure(figsize=(columns * PANEL_INCHES + 1.6, rows * PANEL_INCHES + 1.2), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for head, (panel, weights_SS) in enumerate(zip(panels, weights_HSS, strict=False)):
        # Weights below the diagonal only: what the mask forbids stays white. The square root lets small weights be seen.
        seen_SS = np.ma.masked_where(np.triu(np.ones_like(weights_SS), 1) > 0, weights_SS)
        image = panel.imshow(seen_SS, cmap="viridis", norm=PowerNorm(0.5, 0, 1))
        panel.set_title(f"head {head}", fontsize=10)
        _name_axes(panel, maps.tokens, left=head % columns == 0, bottom=head + columns >= heads)
    for panel in panels[heads:]:
        panel.set_visible(False)
    figure.colorbar(image, ax=panels, label="attention weight (colours by its square root)", shrink=0.6)
    figure.suptitle(f"Attention of layer {layer}: a row's token looks at the columns' tokens")
    return _png(figure)


def _name_axes(panel: "Axes", names: tuple[str, ...], *, left: bool, bottom: bool) -> None:
    # parse_math: a dollar sign in the text is a dollar sign.
    ticks, blank = range(len(names)), [""] * len(names)
    panel.set_xticks(ticks, names if bottom else blank, rotation=90, fontsize=7, parse_math=False)
    panel.set_yticks(ticks, names if left else blank, fontsize=7, parse_math=False)


def expert_load_figure(loads: tuple[LayerLoad, ...]) -> bytes:
    """Load of every expert of every layer as a multiple of the even load."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure

    experts = max(len(load.counts) for load in loads)
    multiples_LE = np.full((len(loads), experts), np.nan)
    for row, load in enumerate(loads):
        multiples_LE[row, : len(load.counts)] = np.array(load.shares) * len(load.counts)
    annotated = experts <= ANNOTATED_EXPERTS
    figure = Figure(figsize=(max(6.0, min(16.0, 2.2 + 0.6 * experts)), 1.8 + 0.45 * len(loads)), layout="constrained")
    panel = figure.subplots()
    highest = max(2.0, float(np.nanmax(multiples_LE)))
    image = panel.imshow(multiples_LE, cmap="RdBu_r", norm=TwoSlopeNorm(1, 0, highest), aspect="auto")
    panel.set_yticks(range(len(loads)), [str(load.layer) for load in loads])
    if annotated:
        panel.set_xticks(range(experts))
        for (row, expert), multiple in np.ndenumerate(multiples_LE):
            if not np.isnan(multiple):
                dark = multiple < 0.25 or multiple > 1 + 0.7 * (highest - 1)
                panel.text(expert, row, f"{multiple:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    panel.set_xlabel("expert")
    panel.set_ylabel("layer")
    panel.set_title("Expert load as a multiple of the even load (1: even, 0: dead)")
    figure.colorbar(image, label="tokens / mean tokens")
    return _png(figure)


def loss_by_position_figure(loss: LossByPosition) -> bytes:
    """Loss of every position, means of the ranges with their errors, and the trend of the last quarter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    panel = figure.subplots()
    positions_S = np.arange(1, len(loss.losses_S) + 1)
    panel.plot(positions_S, loss.losses_S, color="0.65", linewidth=1, label="each position")
    ranges = loss.ranges[:-1]
    panel.errorbar(
        [math.sqrt(part.first * part.last) for part in ranges],
        [part.loss_nats_per_token for part in ranges],
        yerr=[part.standard_error_nats_per_token or 0.0 for part in ranges],
        fmt="o",
        color="C0",
        capsize=3,
        label="range of positions, ± standard error",
    )
    if loss.trend is not None:
        trend = loss.trend
        last_Q = positions_S[trend.first - 1 :]
        doublings_Q = np.log2(last_Q)
        level = float(np.mean(loss.losses_S[trend.first - 1 :]))
        line_Q = level + trend.slope_nats_per_doubling * (doublings_Q - doublings_Q.mean())
        label = (
            f"same tokens with a quarter less to look at: {trend.slope_nats_per_doubling:+.4f} ± {trend.standard_error_nats_per_doubling:.4f} nats per doubling"
        )
        panel.plot(last_Q, line_Q, color="C3", linewidth=2, label=label)
        panel.axvspan(trend.first, trend.last, color="C3", alpha=0.08, linewidth=0)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(lambda position, _: f"{position:g}")
    panel.set_xlabel("position: tokens that the prediction can look at")
    panel.set_ylabel("validation loss (nats per token)")
    panel.set_title(f"Loss by position in the sequence, {loss.windows:,} windows of {len(loss.losses_S):,}")
    panel.grid(alpha=0.3)
    panel.legend()
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
