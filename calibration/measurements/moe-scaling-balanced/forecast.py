"""``python forecast.py TABLE [FORECASTS]``: the loss of every run of the grid that TABLE lacks, with 80 % intervals, as CSV; or how FORECASTS came true in it.

Forecasts are made before the runs and kept; the law is ``joint-moe-fixed``, N active parameters without embeddings. Intervals hold the scatter of a new run
and are widened by what forecasts inside the table ask for.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from balanced_grids import EXPERTS, SEEDED_EXPERTS, SEEDED_SIZES, SEEDS, SIZES, TOKENS, TOP_K, shape

from calibration.scaling.backtest import LEVEL, widening
from calibration.scaling.bootstrap import bootstrap
from calibration.scaling.fit import fit
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective
from calibration.scaling.points import points_at, points_of
from configuration.overrides import split_by_kind
from simulator.records.run_table import RunRow, read_rows
from simulator.specs import load_model

LAW, COUNT = "joint-moe-fixed", "active-non-embedding"
VOCABULARY = 2048
Setting = tuple[int, int, int, int]
"""Active parameters without embeddings, experts, seed and tokens: what tells runs of the grid apart."""


def settings() -> Iterator[Setting]:
    """Every run of the grid."""
    seeds = {(width, experts): (0,) for width in SIZES for experts in EXPERTS} | {(width, SEEDED_EXPERTS): (0, *SEEDS) for width in SEEDED_SIZES}
    for (width, experts), given in seeds.items():
        spec = load_model("tiny-moe", split_by_kind(shape(width, experts) | {"model.vocabulary": VOCABULARY})["model"])
        for seed in given:
            for tokens in TOKENS:
                yield spec.active_parameters - spec.embedding_parameters, 1 if experts == 1 else TOP_K * experts, seed, tokens


def setting(row: RunRow) -> Setting:
    """That of a row of the table."""
    assert row.embedding_parameters is not None
    assert row.seed is not None
    return round(row.active_parameters - row.embedding_parameters), row.experts, row.seed, round(row.tokens)


def forecast(rows: list[RunRow], wanted: list[Setting]) -> Iterator[tuple[Setting, float, float, float]]:
    """Loss and the ends of its interval, in nats a token."""
    n, experts, _, d = np.array(wanted).T
    asked = points_at(n, d, experts=experts, top_k=np.where(experts > 1, TOP_K, 1))
    law, objective = fitted_law_named(LAW), Objective()
    found = fit(points_of(rows, COUNT), law, objective)
    ensemble = replace(bootstrap(found), widening=widening(found.points, law, objective))
    estimate = law.log_loss(found.theta, asked)
    drawn = ensemble.spread(law.log_loss(ensemble.refits, asked), estimate) + ensemble.scatter(len(asked), seed=0)
    low, high = np.quantile(estimate + ensemble.widening * (drawn - estimate), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    yield from zip(wanted, np.exp(estimate).tolist(), np.exp(low).tolist(), np.exp(high).tolist(), strict=True)


def judge(rows: list[RunRow], forecasts: Path) -> str:
    """Errors of the forecasts whose runs are in the table by now, by compute beyond the largest run known when they were made."""
    with forecasts.open(newline="") as file:
        told = {tuple(int(line[name]) for name in ("n", "experts", "seed", "tokens")): line for line in csv.DictReader(file)}
    known = max((row.training_flops or 0.0 for row in rows if setting(row) not in told), default=0.0)
    came = [(row, told[setting(row)]) for row in rows if setting(row) in told]
    errors = np.array([float(line["loss"]) / row.validation_loss_nats_per_token - 1 for row, line in came])
    inside = np.array([float(line["low"]) <= row.validation_loss_nats_per_token <= float(line["high"]) for row, line in came])
    beyond = np.array([(row.training_flops or 0.0) > known for row, _ in came])
    lines = []
    for name, chosen in (("all", beyond | ~beyond), ("of more compute than any run known", beyond)):
        if chosen.any():
            lines.append(
                f"{name}: {chosen.sum()} runs, mean error {np.abs(errors[chosen]).mean():.2%}, bias {errors[chosen].mean():+.2%}, "
                f"worst {np.abs(errors[chosen]).max():.2%}; {inside[chosen].mean():.0%} inside their intervals"
            )
    return "\n".join(lines)


def main() -> None:
    """Print forecasts, or how they came true."""
    rows = read_rows(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        print(judge(rows, Path(sys.argv[2])))
        return
    have = {setting(row) for row in rows}
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(("n", "experts", "seed", "tokens", "loss", "low", "high"))
    for at, loss, low, high in forecast(rows, [at for at in settings() if at not in have]):
        lines.writerow((*at, f"{loss:.4f}", f"{low:.4f}", f"{high:.4f}"))


if __name__ == "__main__":
    main()
