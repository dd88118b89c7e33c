"""``python held_out.py``: errors on the largest size and the longest runs, which the fit has not seen, and the scatter of seeds."""

import collections
from pathlib import Path

import numpy as np

from calibration.scaling.baselines import nearest_run, no_floor
from calibration.scaling.fit import fit
from calibration.scaling.gates import Gates, gated
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.points import points_of
from simulator.records.run_table import RunRow, read_rows

TABLE = Path(__file__).with_name("losses.csv")


def seed_deviation(rows: list[RunRow]) -> float:
    """Pooled standard deviation of ln L over runs that differ in their seed alone."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row.active_parameters, row.experts, row.tokens].append(np.log(row.validation_loss_nats_per_token))
    return float(np.sqrt(np.mean([np.var(group, ddof=1) for group in groups.values() if len(group) > 1])))


def main() -> None:
    """Print the table."""
    rows, _ = gated(read_rows(TABLE), Gates())
    largest = {experts: max(row.active_parameters for row in rows if row.experts == experts) for experts in (1, 4, 16)}
    longest = max(row.tokens for row in rows)
    held = [row for row in rows if row.active_parameters == largest[row.experts] or row.tokens == longest]
    seen = points_of([row for row in rows if row not in held])
    asked = points_of(held)
    print(f"seeds: standard deviation of ln L {seed_deviation(rows):.2%}; {len(seen)} runs fitted, {len(asked)} held out")
    for name in ("joint-moe-fixed", "joint-moe-size"):
        found = fit(seen, fitted_law_named(name))
        error = np.expm1(found.law.log_loss(found.theta, asked) - asked.log_loss)
        print(f"{name}: mean error {np.abs(error).mean():.2%}, bias {error.mean():+.2%}, worst {np.abs(error).max():.2%}")
    for title, predicted in (("no floor", no_floor(seen, asked)), ("nearest run", nearest_run(seen, asked))):
        print(f"{title}: mean error {np.abs(np.expm1(predicted - asked.log_loss)).mean():.2%}")


if __name__ == "__main__":
    main()
