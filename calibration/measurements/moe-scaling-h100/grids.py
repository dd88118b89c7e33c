"""The grids of this measurement: ``python grids.py learning-rates`` and, with the table that those runs made, ``python grids.py losses TABLE``.

Prints a file for ``python -m trainer sweep --grid``. Sizes: two to six layers of widths 64 to 384 with heads of 16, one expert a token of twice the width.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from simulator.records.run_table import RunRow, read_rows

SIZES = {64: 2, 96: 2, 128: 3, 176: 4, 256: 5, 384: 6}
"""Width to layers: 0.08, 0.18, 0.49, 1.2, 3.3 and 8.8 M active parameters without embeddings."""

EXPERTS = (1, 4, 16)
SHORTER = int(os.environ.get("SHORTER", "1"))
"""Divides all tokens, to try the whole thing out."""

TOKENS = tuple(2**22 // SHORTER * 2**doubling for doubling in range(6))
SEEDED_SIZES, SEEDED_EXPERTS, SEEDS = (64, 128, 256), 4, (1, 2)
"""Corners and centre of the grid without its largest size, run with two more seeds."""

TUNED = ((64, 4), (128, 4), (256, 4), (128, 16))
"""Width and experts at which the learning rate is tuned, at TUNED_TOKENS."""

TUNED_TOKENS = 2**23 // SHORTER
RATES = tuple(1e-3 * 2**step for step in range(5))


def shape(width: int, experts: int) -> dict[str, Any]:
    """The fields of one size."""
    feed_forward = {"kind": "moe", "experts": experts, "top_k": 1, "expert_width": 2 * width} if experts > 1 else {"kind": "dense", "hidden_width": 2 * width}
    mixer = {"kind": "grouped_query", "heads": width // 16, "kv_heads": width // 16, "head_width": 16}
    return {"model.width": width, "model.blocks": [{"count": SIZES[width], "mixer": mixer, "feed_forward": feed_forward}]}


def active(width: int) -> float:
    """Active parameters without embeddings, router and norms left out."""
    return 10.0 * width**2 * SIZES[width]


def tuning() -> list[list[list[dict[str, Any]]]]:
    """Learning rates at a few sizes."""
    return [[[shape(*tuned) for tuned in TUNED], [{"training.tokens": TUNED_TOKENS, "training.learning_rate": rate} for rate in RATES]]]


def losses(table: Path) -> list[list[list[dict[str, Any]]]]:
    """The grid itself, at the learning rates that ``table`` gives."""
    rate = rule(read_rows(table))

    def grid(widths: tuple[int, ...], experts: tuple[int, ...], seeds: tuple[int, ...]) -> list[list[dict[str, Any]]]:
        shapes = [shape(width, e) | {"training.learning_rate": float(f"{rate(width, e):.3g}")} for width in widths for e in experts]
        return [shapes, [{"training.seed": seed} for seed in seeds], [{"training.tokens": tokens} for tokens in TOKENS]]

    return [grid(tuple(SIZES), EXPERTS, (0,)), grid(SEEDED_SIZES, (SEEDED_EXPERTS,), SEEDS)]


def rule(rows: list[RunRow]) -> Any:
    """Learning rate of (width, experts): a power of the active parameters and of the experts through the best rates of TUNED.

    The best rate of a size is the vertex of a parabola through the three lowest losses against ln rate, kept within the rates tried.
    """
    best: dict[tuple[int, int], float] = {}
    for width, experts in TUNED:
        own = [row for row in rows if row.layers == SIZES[width] and row.experts == experts and _width(row) == width]
        tried = sorted((float(row.peak_learning_rate or math.nan), row.validation_loss_nats_per_token) for row in own)
        logs, found = np.log([pair[0] for pair in tried]), np.array([pair[1] for pair in tried])
        middle = int(np.clip(found.argmin(), 1, len(tried) - 2))
        curve, slope, _ = np.polyfit(logs[middle - 1 : middle + 2], found[middle - 1 : middle + 2], 2)
        vertex = -slope / (2 * curve) if curve > 0 else logs[found.argmin()]
        best[width, experts] = float(np.exp(np.clip(vertex, logs[0], logs[-1])))
        print(width, experts, [(f"{rate:.3g}", f"{loss:.4f}") for rate, loss in tried], f"best {best[width, experts]:.3g}", file=sys.stderr)
    dense = [(width, value) for (width, experts), value in best.items() if experts == SEEDED_EXPERTS]
    power, intercept = np.polyfit([math.log(active(width)) for width, _ in dense], [math.log(value) for _, value in dense], 1)
    by_experts = math.log(best[128, 16] / best[128, 4]) / math.log(4)
    print(f"learning rate = {math.exp(intercept):.3g} N^{power:.3f} (E / 4)^{by_experts:.3f}", file=sys.stderr)
    return lambda width, experts: math.exp(intercept) * active(width) ** power * (experts / 4) ** by_experts


def _width(row: RunRow) -> int:
    return round(float(row.embedding_parameters or 0) / float(row.vocabulary or 1))


if __name__ == "__main__":
    print(json.dumps({"grids": tuning() if sys.argv[1] == "learning-rates" else losses(Path(sys.argv[2]))}, indent=1))
