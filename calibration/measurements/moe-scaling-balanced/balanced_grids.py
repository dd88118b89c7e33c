"""The grid of this measurement: ``python balanced_grids.py`` prints a file for ``python -m trainer sweep --grid``.

Sizes: three to six layers of widths 96 to 512 with heads of 32; feed-forwards of twice the width.
"""

import json
import os
from typing import Any

SIZES = {96: 3, 128: 4, 192: 4, 256: 5, 384: 5, 512: 6}
"""Width to layers: 0.28, 0.66, 1.5, 3.3, 7.4 and 15.7 M active parameters without embeddings."""

EXPERTS = (1, 4, 16)
"""Times the parameters of the dense feed-forward; 8 and 32 experts of half its width."""
SHORTER, NARROWER = int(os.environ.get("SHORTER", "1")), int(os.environ.get("NARROWER", "1"))
"""Divide all tokens and all widths, to try the whole thing out."""

TOKENS = tuple(2**23 // SHORTER * part for part in (2, 3, 4, 6, 8))
SEEDED_SIZES, SEEDED_EXPERTS, SEEDS = (96, 192, 384), 4, (1, 2)
"""Run with two more seeds."""

TOP_K = 2
"""Experts of a token, each as wide as the model, so that together they are the dense feed-forward."""

ROUTING = {"router": "sigmoid", "normalise_weights": True, "selection_bias": True}
"""Best of five tried (README): with one expert a token loads stayed uneven, and when a model learned to copy from its context was a matter of luck."""

RATE, RATE_POWER = 6e-3, -1 / 3
"""The learning rate at 0.1 M active parameters, and how it falls with them: near the best of those tried on 33 M tokens (README)."""


def shape(width: int, experts: int) -> dict[str, Any]:
    """The fields of one size; ``experts``: how many times the parameters of a dense feed-forward there are."""
    narrow, heads = width // NARROWER, width // 32
    expert = {"kind": "moe", "experts": TOP_K * experts, "top_k": TOP_K, "expert_width": 2 * narrow // TOP_K, **ROUTING}
    feed_forward = expert if experts > 1 else {"kind": "dense", "hidden_width": 2 * narrow}
    mixer = {"kind": "grouped_query", "heads": heads, "kv_heads": heads, "head_width": narrow // heads, "qk_norm": "head"}
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
