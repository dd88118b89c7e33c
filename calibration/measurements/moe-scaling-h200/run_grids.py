"""The grid of this measurement: ``python run_grids.py`` prints a file for ``python -m trainer sweep --grid``.
Sizes: three to five layers of widths 64 to 384 with heads of 32, one expert a token of twice the width.
"""

import json
import os
from typing import Any

SIZES = {64: 3, 96: 3, 128: 4, 192: 4, 256: 5, 384: 5}
"""Width to layers: 0.12, 0.28, 0.66, 1.5, 3.3 and 7.4 M active parameters without embeddings."""

EXPERTS = (1, 4, 16)
SHORTER, NARROWER = int(os.environ.get("SHORTER", "1")), int(os.environ.get("NARROWER", "1"))
"""Divide all tokens and all widths, to try the whole thing out."""

TOKENS = tuple(2**23 // SHORTER * 2**doubling for doubling in range(5))
SEEDED_SIZES, SEEDED_EXPERTS, SEEDS = (64, 128, 256), 4, (1, 2)
"""Corners and centre of the grid without its largest size, run with two more seeds."""

RATE, RATE_POWER = 2e-3, -0.3
"""Assumed: the learning rate at 0.1 M active parameters, and how it falls with them. The first table's best rates were 0.004 at 0.1 M, 0.001 to 0.002 at
0.5 M and 0.001, the lowest tried, at 3.3 M, with steps of twice the tokens and a quarter of the warm-up."""


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


def rate(width: int) -> float:
    """Learning rate of one size, whatever the experts."""
    return float(f"{RATE * (active(width) / 1e5) ** RATE_POWER:.3g}")


def losses() -> list[list[list[dict[str, Any]]]]:
    """The grid."""

    def grid(widths: tuple[int, ...], experts: tuple[int, ...], seeds: tuple[int, ...]) -> list[list[dict[str, Any]]]:
        shapes = [shape(width, e) | {"training.learning_rate": rate(width)} for width in widths for e in experts]
        return [shapes, [{"training.seed": seed} for seed in seeds], [{"training.tokens": tokens} for tokens in TOKENS]]

    return [grid(tuple(SIZES), EXPERTS, (0,)), grid(SEEDED_SIZES, (SEEDED_EXPERTS,), SEEDS)]


if __name__ == "__main__":
    print(json.dumps({"grids": losses()}, indent=1))
