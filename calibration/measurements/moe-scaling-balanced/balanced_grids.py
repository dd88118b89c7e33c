"""The grid of this measurement: ``python balanced_grids.py [TABLE...]`` prints a file for ``python -m trainer sweep --grid``, without the runs in the tables.

Sizes: three to eight layers of widths 96 to 896 with heads of 32; feed-forwards of twice the width.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configuration.overrides import split_by_kind
from simulator.records.run_table import RunRow, read_rows
from simulator.specs import load_model

SIZES = {96: 3, 128: 4, 192: 4, 256: 5, 384: 5, 512: 6, 640: 8, 896: 8}
"""Width to layers: 0.28, 0.66, 1.5, 3.3, 7.4, 15.7, 32.8 and 64.3 M active parameters without embeddings."""

EXPERTS = (1, 4, 16)
"""Times the parameters of the dense feed-forward; 8 and 32 experts of half its width."""
SHORTER, NARROWER = int(os.environ.get("SHORTER", "1")), int(os.environ.get("NARROWER", "1"))
"""Divide all tokens and all widths, to try the whole thing out."""

TOKENS = tuple(2**23 // SHORTER * part for part in (2, 3, 4, 6, 8))
SEEDED_SIZES, SEEDED_EXPERTS, SEEDS = (96, 192, 384), 4, (1, 2)
"""Run with two more seeds."""

VOCABULARY = 2048
Setting = tuple[int, int, int, int]
"""Active parameters without embeddings, experts, seed and tokens: what tells runs of the grid apart."""

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


def runs() -> Iterator[tuple[int, int, int, int]]:
    """Width, times the parameters of the dense feed-forward, seed and tokens of every run."""
    seeds = {(width, experts): (0,) for width in SIZES for experts in EXPERTS} | {(width, SEEDED_EXPERTS): (0, *SEEDS) for width in SEEDED_SIZES}
    for (width, experts), given in seeds.items():
        yield from ((width, experts, seed, tokens) for seed in given for tokens in TOKENS)


def setting(width: int, experts: int, seed: int, tokens: int) -> Setting:
    """What tells a run apart in a table."""
    spec = load_model("tiny-moe", split_by_kind(shape(width, experts) | {"model.vocabulary": VOCABULARY})["model"])
    return spec.active_parameters - spec.embedding_parameters, 1 if experts == 1 else TOP_K * experts, seed, tokens


def setting_of(row: RunRow) -> Setting:
    """That of a row of a table."""
    assert row.embedding_parameters is not None
    assert row.seed is not None
    return round(row.active_parameters - row.embedding_parameters), row.experts, row.seed, round(row.tokens)


def main() -> None:
    """Print the grid, without the runs that are in the tables named."""
    have = {setting_of(row) for table in sys.argv[1:] for row in read_rows(Path(table))}
    points = [
        shape(width, experts) | {"training.learning_rate": rate(width), "training.seed": seed, "training.tokens": tokens}
        for width, experts, seed, tokens in runs()
        if not have or setting(width, experts, seed, tokens) not in have
    ]
    print(json.dumps({"grids": [[points]]}, indent=1))


if __name__ == "__main__":
    main()
