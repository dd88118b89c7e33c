"""The grids of this measurement: ``python run_grids.py learning-rates`` and, with the table that those runs made, ``python run_grids.py losses TABLE``.

Prints a file for ``python -m trainer sweep --grid``. Sizes: three to five layers of widths 64 to 384 with heads of 32, one expert a token of twice the width.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simulator.records.run_table import RunRow, read_rows

SIZES = {64: 3, 96: 3, 128: 4, 192: 4, 256: 5, 384: 5}
"""Width to layers: 0.12, 0.28, 0.66, 1.5, 3.3 and 7.4 M active parameters without embeddings."""

EXPERTS = (1, 4, 16)
SHORTER, NARROWER = int(os.environ.get("SHORTER", "1")), int(os.environ.get("NARROWER", "1"))
"""Divide all tokens and all widths, to try the whole thing out."""

TOKENS = tuple(2**23 // SHORTER * 2**doubling for doubling in range(5))
SEEDED_SIZES, SEEDED_EXPERTS, SEEDS = (64, 128, 256), 4, (1, 2)
"""Corners and centre of the grid without its largest size, run with two more seeds."""

TUNED = ((64, 1), (64, 16), (128, 4), (192, 4), (256, 1), (256, 16))
"""Width and experts at which the learning rate is tuned, at TUNED_TOKENS: corners and middle."""

TUNED_TOKENS = 2**24 // SHORTER
RATES = tuple(5e-4 * 2.1**step for step in range(4))
FEWEST_TUNED, FEWEST_RATES = 4, 3
"""Shapes that three coefficients need, and rates that a parabola needs."""


def shape(width: int, experts: int) -> dict[str, Any]:
    """The fields of one size.

    The chosen expert counts with twice the sigmoid of its logit: one at the beginning, whatever the number of experts, and the router learns from the loss.
    (Weights divided by their sum are always one where one expert is chosen, and no gradient reaches the router.)
    """
    narrow, heads = width // NARROWER, width // 32
    routing = {"router": "sigmoid", "normalise_weights": False, "weight_scale": 2.0}
    expert = {"kind": "moe", "experts": experts, "top_k": 1, "expert_width": 2 * narrow, **routing}
    feed_forward = expert if experts > 1 else {"kind": "dense", "hidden_width": 2 * narrow}
    mixer = {"kind": "grouped_query", "heads": heads, "kv_heads": heads, "head_width": narrow // heads}
    return {"model.width": narrow, "model.blocks": [{"count": SIZES[width], "mixer": mixer, "feed_forward": feed_forward}]}


def active(width: int) -> float:
    """Active parameters without embeddings, router and norms left out."""
    return 10.0 * width**2 * SIZES[width]


def tuning() -> list[list[list[dict[str, Any]]]]:
    """Learning rates at a few sizes."""
    return [[[shape(*tuned) for tuned in TUNED], [{"training.tokens": TUNED_TOKENS, "training.learning_rate": float(f"{rate:.3g}")} for rate in RATES]]]


def losses(table: Path) -> list[list[list[dict[str, Any]]]]:
    """The grid itself, at the learning rates that ``table`` gives."""
    rate = rule(read_rows(table))

    def grid(widths: tuple[int, ...], experts: tuple[int, ...], seeds: tuple[int, ...]) -> list[list[dict[str, Any]]]:
        shapes = [shape(width, e) | {"training.learning_rate": float(f"{rate(width, e):.3g}")} for width in widths for e in experts]
        return [shapes, [{"training.seed": seed} for seed in seeds], [{"training.tokens": tokens} for tokens in TOKENS]]

    return [grid(tuple(SIZES), EXPERTS, (0,)), grid(SEEDED_SIZES, (SEEDED_EXPERTS,), SEEDS)]


def rule(rows: list[RunRow]) -> Callable[[int, int], float]:
    """Learning rate of (width, experts): a power of the active parameters and of the experts, by least squares through the best rates of TUNED.

    The best rate of a size is the vertex of a parabola through the three lowest losses against ln rate, kept within the rates tried.
    """
    best: dict[tuple[int, int], float] = {}
    for width, experts in TUNED:
        own = [row for row in rows if row.layers == SIZES[width] and row.experts == experts and _width(row) == width // NARROWER]
        tried = sorted((float(row.peak_learning_rate or math.nan), row.validation_loss_nats_per_token) for row in own)
        if len(tried) < FEWEST_RATES:
            continue
        best[width, experts] = _best(tried)
        print(width, experts, [(f"{rate:.3g}", f"{loss:.4f}") for rate, loss in tried], f"best {best[width, experts]:.3g}", file=sys.stderr)
    if len(best) < FEWEST_TUNED:
        sys.exit(f"learning rates: {len(best)} of {len(TUNED)} shapes have {FEWEST_RATES} rates or more; give the tuning more time")
    design = [[1.0, math.log(active(width)), math.log(experts)] for width, experts in best]
    (intercept, by_size, by_experts), *_ = np.linalg.lstsq(np.array(design), np.log(list(best.values())), rcond=None)
    print(f"learning rate = {math.exp(intercept):.3g} N^{by_size:.3f} E^{by_experts:.3f}", file=sys.stderr)
    return lambda width, experts: math.exp(intercept) * active(width) ** by_size * experts**by_experts


def _best(tried: list[tuple[float, float]]) -> float:
    logs, found = np.log([pair[0] for pair in tried]), np.array([pair[1] for pair in tried])
    middle = int(np.clip(found.argmin(), 1, len(tried) - 2))
    curve, slope, _ = np.polyfit(logs[middle - 1 : middle + 2], found[middle - 1 : middle + 2], 2)
    vertex = -slope / (2 * curve) if curve > 0 else logs[found.argmin()]
    return float(np.exp(np.clip(vertex, logs[0], logs[-1])))


def _width(row: RunRow) -> int:
    return round(float(row.embedding_parameters or 0) / float(row.vocabulary or 1))


if __name__ == "__main__":
    print(json.dumps({"grids": tuning() if sys.argv[1] == "learning-rates" else losses(Path(sys.argv[2]))}, indent=1))
