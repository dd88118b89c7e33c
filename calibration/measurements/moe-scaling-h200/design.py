"""``python design.py [TABLES]``: what the backtest of this grid errs by when the law's form is right, before anything is run.

Tables are simulated from the joint law as the runs of ``moe-scaling-h100`` give it (those of 8 M tokens and more), with noise of which half the variance
is common to a trunk.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import run_grids

from calibration.scaling.backtest import backtest, backtest_document
from calibration.scaling.fit import Fit, fit
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective
from calibration.scaling.points import Points, points_at, points_of
from simulator.records.run_table import read_rows

EARLIER = Path(__file__).parents[1] / "moe-scaling-h100" / "losses.csv"
LAW = fitted_law_named("joint-moe-fixed")
NOISES = (0.003, 0.006, 0.01)
SEED_NUMBERS = (0, *run_grids.SEEDS)


def simulated(truth: Fit, noise: float, seed: int) -> Points:
    """The grid's runs with losses of ``truth`` and standard deviation ``noise`` of ln L."""
    rng = np.random.default_rng(seed)
    trunks = [
        (run_grids.active(width), experts, number)
        for width in run_grids.SIZES
        for experts in run_grids.EXPERTS
        for number in SEED_NUMBERS
        if _made(width, experts, number)
    ]
    runs = [(n, tokens, experts, trunk) for trunk, (n, experts, _) in enumerate(trunks) for tokens in run_grids.TOKENS]
    n, d, experts, trunk = (np.array(column, dtype=float) for column in zip(*runs, strict=True))
    points = points_at(n, d, experts=experts)
    shared, own = rng.standard_normal(len(trunks))[trunk.astype(int)], rng.standard_normal(len(runs))
    return replace(points, log_loss=LAW.log_loss(truth.theta, points) + noise * np.sqrt(0.5) * (shared + own))


def _made(width: int, experts: int, number: int) -> bool:
    return number == 0 or (width in run_grids.SEEDED_SIZES and experts == run_grids.SEEDED_EXPERTS)


def main() -> None:
    """Print a line for each level of noise."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    earlier = points_of([row for row in read_rows(EARLIER) if row.tokens > 8e6], "active-non-embedding")
    truth = fit(earlier, LAW, Objective(0.01))
    for noise in NOISES:
        found = [backtest_document(backtest(simulated(truth, noise, seed), LAW, Objective(), seed=seed))["rolling"] for seed in range(count)]
        pooled = {
            low: [part["mean_absolute_relative_error"] for each in found for part in each["by_factor"] if part["factor_above"] == low] for low in (2.5, 6.0)
        }
        errors = ", ".join(f"{np.mean(each):.2%} (worst {np.max(each):.2%}) above {low:g} times" for low, each in pooled.items())
        covered = [each["coverage"] for each in found]
        print(
            f"noise {noise:.1%}: {found[0]['runs']} forecasts; {errors} the compute; coverage {np.mean(covered):.0%} ({min(covered):.0%} to {max(covered):.0%})"
        )


if __name__ == "__main__":
    main()
