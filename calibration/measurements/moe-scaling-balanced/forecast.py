"""``python forecast.py TABLE [PRIOR...]``: the loss of every run of the grid that TABLE lacks, with 80 % intervals, as CSV; PRIOR as NAME=MEAN:SD.

``python forecast.py TABLE FORECASTS`` tells how such a file came true in TABLE.

Forecasts are made before the runs and kept; the law is ``joint-moe-fixed``, N active parameters without embeddings. Intervals hold the scatter of a new run
and are widened by what forecasts inside the table ask for. All runs of the table are fitted to, and all that came are judged, whatever the gates of
``calibration scaling`` say of them.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from balanced_grids import TOP_K, Setting, runs, setting, setting_of

from calibration.scaling.backtest import widening
from calibration.scaling.bootstrap import FORECAST_LEVEL, bootstrap, central
from calibration.scaling.fit import fit
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective, parse_priors
from calibration.scaling.points import points_at, points_of
from simulator.records.run_table import RunRow, read_rows

LAW, COUNT = "joint-moe-fixed", "active-non-embedding"


def forecast(rows: list[RunRow], wanted: list[Setting], objective: Objective) -> Iterator[tuple[Setting, float, float, float]]:
    """Loss and the ends of its interval, in nats a token."""
    n, experts, _, d = np.array(wanted).T
    asked = points_at(n, d, experts=experts, top_k=np.where(experts > 1, TOP_K, 1))
    law = fitted_law_named(LAW)
    found = fit(points_of(rows, COUNT), law, objective)
    ensemble = replace(bootstrap(found), widening=widening(found.points, law, objective))
    estimate = law.log_loss(found.theta, asked)
    drawn = ensemble.spread(law.log_loss(ensemble.refits, asked), estimate) + ensemble.scatter(len(asked), seed=0)
    low, high = ensemble.widening.ends(*central(drawn - estimate, FORECAST_LEVEL), asked, FORECAST_LEVEL)
    yield from zip(wanted, np.exp(estimate).tolist(), np.exp(estimate + low).tolist(), np.exp(estimate + high).tolist(), strict=True)


def judge(rows: list[RunRow], forecasts: Path) -> str:
    """Errors of the forecasts whose runs are in the table by now, by compute beyond the largest run known when they were made."""
    with forecasts.open(newline="") as file:
        told = {tuple(int(line[name]) for name in ("n", "experts", "seed", "tokens")): line for line in csv.DictReader(file)}
    came = [(row, told[setting_of(row)]) for row in rows if setting_of(row) in told]
    errors = np.array([float(line["loss"]) / row.validation_loss_nats_per_token - 1 for row, line in came])
    inside = np.array([float(line["low"]) <= row.validation_loss_nats_per_token <= float(line["high"]) for row, line in came])
    beyond = np.array([(row.training_flops or 0.0) > float(line["known_flops"]) for row, line in came])
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
    others = sys.argv[2:]
    if others and "=" not in others[0]:
        print(judge(rows, Path(others[0])))
        return
    have = {setting_of(row) for row in rows}
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(("n", "experts", "seed", "tokens", "loss", "low", "high", "known_flops"))
    known = max(row.training_flops or 0.0 for row in rows)
    for at, loss, low, high in forecast(rows, [at for at in (setting(*run) for run in runs()) if at not in have], Objective(priors=parse_priors(others))):
        lines.writerow((*at, f"{loss:.4f}", f"{low:.4f}", f"{high:.4f}", known))


if __name__ == "__main__":
    main()
