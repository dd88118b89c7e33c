"""Do intervals cover the truth? Seeded Monte Carlo over simulated tables."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.scaling.backtest import widening
from calibration.scaling.bootstrap import bootstrap
from calibration.scaling.fit import fit
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective
from calibration.scaling.points import Floats, points_at
from calibration.scaling.verdict import rho_at

TABLES = 300
LAW = fitted_law_named("chinchilla")
TRUTH = LAW.theta_of({"E": 1.8, "A": 0.9 * 1e7**0.34, "B": 1e9**0.30, "alpha": 0.34, "beta": 0.30})
SIZES, TOKENS = (axis.ravel() for axis in np.meshgrid(1e7 * np.geomspace(0.125, 8, 5), 1e9 * np.geomspace(0.125, 8, 5)))
HELD_OUT = points_at(n=1.6e8, d=1.6e10)
"""Four times the compute of the largest simulated run."""


def log_rho(theta: Floats) -> Floats:
    return np.log(rho_at(LAW, np.atleast_2d(theta), HELD_OUT)[:, 0])


@pytest.mark.slow
def test_95_percent_intervals_of_held_out_loss_and_of_rho_cover_90_to_99_percent() -> None:
    """The intervals that a study gives: widened by what forecasts inside the table ask for."""
    covered = {"loss": 0, "rho": 0}
    least_squares = Objective(float("inf"))
    for seed in range(TABLES):
        noise = 0.003 * np.random.default_rng(seed).standard_normal(len(SIZES))
        points = points_at(n=SIZES, d=TOKENS, loss=LAW.loss(TRUTH, points_at(n=SIZES, d=TOKENS)) * np.exp(noise))
        found = fit(points, LAW, least_squares, random_starts=4)
        ensemble = replace(bootstrap(found, resamples=200, seed=seed), widening=widening(points, LAW, least_squares))
        loss_ends = ensemble.log_loss_interval(LAW.log_loss(ensemble.refits, HELD_OUT), LAW.log_loss(found.theta, HELD_OUT), HELD_OUT, 0.95)
        rho_ends = ensemble.interval(ensemble.widened(log_rho(ensemble.refits), log_rho(found.theta)[0]), 0.95)
        for name, (low, high), truth in (("loss", loss_ends, LAW.log_loss(TRUTH, HELD_OUT)[0]), ("rho", rho_ends, log_rho(TRUTH)[0])):
            covered[name] += bool(low <= truth <= high)
    shares = {name: count / TABLES for name, count in covered.items()}
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares
