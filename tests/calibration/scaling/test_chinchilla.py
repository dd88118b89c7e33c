"""The Chinchilla law against reference fits of the table extracted by Epoch AI (arXiv 2404.10102)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.scaling.bootstrap import bootstrap
from calibration.scaling.fit import Fit, fit
from calibration.scaling.gates import Gates, gated
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective
from calibration.scaling.points import points_at, points_of
from calibration.scaling.verdict import rho_at, verdict_at
from simulator.records.run_table import parse_columns, read_table

TABLE = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "scaling" / "chinchilla_epoch_extracted.csv"
GADRE = Path(__file__).with_name("gadre2024_c4.csv")
"""34 runs on C4 of Gadre et al. 2024 (arXiv 2403.08540), compiled from their repository, row by row as it says (MIT licence)."""
COLUMNS = "n=Model Size,c=Training FLOP,loss=loss"
needs_table = pytest.mark.skipif(not TABLE.is_file(), reason="the extracted Chinchilla table is not at hand")


def epoch_fit(keep_all: bool = False) -> Fit:
    rows = read_table(TABLE, parse_columns(COLUMNS)).rows
    kept = rows if keep_all else gated(rows, Gates(tokens_per_parameter=(0.41, 1000)))[0]
    return fit(points_of(kept, "active"), fitted_law_named("chinchilla"), Objective(1e-3))


@needs_table
def test_the_optimum_of_240_rows_is_the_reference_one() -> None:
    found = epoch_fit()
    assert len(found.points) == 240
    assert found.value == pytest.approx(0.00101827401780, rel=1e-7)
    reference = {"E": (1.8172181, 1e-4), "A": (477.82587, 1e-3), "B": (2143.4174, 1e-3), "alpha": (0.3473105, 1e-4), "beta": (0.3671724, 1e-4)}
    for name, (value, relative) in reference.items():
        assert found.coefficients[name] == pytest.approx(value, rel=relative)


@needs_table
def test_the_optimum_lies_near_the_published_refit() -> None:
    published = {"E": (1.8172, 1e-3), "A": (482.01, 1e-2), "B": (2085.43, 3e-2), "alpha": (0.3478, 2e-3), "beta": (0.3658, 4e-3)}
    found = epoch_fit().coefficients
    for name, (value, relative) in published.items():
        assert found[name] == pytest.approx(value, rel=relative)


@needs_table
def test_all_245_rows_move_the_data_exponent() -> None:
    found = epoch_fit(keep_all=True).coefficients
    for name, value in {"E": 1.8913385, "A": 495.726, "B": 12845.61, "alpha": 0.3493129, "beta": 0.4530493}.items():
        assert found[name] == pytest.approx(value, rel=1e-3)


@needs_table
def test_bootstrap_intervals_end_where_the_reference_does() -> None:
    found = epoch_fit()
    ensemble = bootstrap(found, resamples=1000, seed=0)
    assert ensemble.share_converged >= 0.99
    assert ensemble.share_confirmed >= 0.99, "a second start finds nothing better"
    values = found.law.natural(ensemble.theta)
    names = [parameter.name for parameter in found.law.parameters]
    for name, (low, high, tolerance) in {
        "alpha": (0.317, 0.372, 0.005), "beta": (0.332, 0.414, 0.01), "E": (1.770, 1.871, 0.005),
    }.items():  # fmt: skip
        ends = ensemble.interval(values[:, names.index(name)], 0.95)
        assert ends == pytest.approx((low, high), abs=tolerance)


@needs_table
def test_optimal_allocation_follows_from_the_exponents() -> None:
    c = epoch_fit().coefficients
    share = c["beta"] / (c["alpha"] + c["beta"])
    assert share == pytest.approx(0.5139, abs=1e-3)
    ratio = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
    n = ratio * (5.76e23 / 6) ** share
    assert 5.76e23 / 6 / n**2 == pytest.approx(17.9, abs=0.1)


@needs_table
def test_prediction_and_verdict_at_chinchilla_itself() -> None:
    found = epoch_fit()
    here = points_at(n=[70e9], d=[1.4e12])
    assert found.law.loss(found.theta, here)[0] == pytest.approx(1.973367, abs=1e-5)
    assert rho_at(found.law, found.theta, here) == pytest.approx(1.0402, abs=1e-3)


@needs_table
def test_gopher_is_data_bound_and_a_small_long_run_parameter_bound() -> None:
    found = epoch_fit()
    ensemble = bootstrap(found, resamples=200, seed=0)
    assert verdict_at(found, ensemble, points_at(n=[280e9], d=[300e9])).state == "data-bound"
    assert verdict_at(found, ensemble, points_at(n=[7e9], d=[2e12])).state == "parameter-bound"


@pytest.mark.slow
@needs_table
def test_same_table_and_seed_give_the_same_bytes() -> None:
    words = [
        sys.executable,
        "-m",
        "calibration",
        "scaling",
        "fit",
        "--runs",
        str(TABLE),
        "--columns",
        COLUMNS,
        "--resamples",
        "100",
        "--origins",
        "1",
        "--json",
    ]
    first, second = (subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == second
    document = json.loads(first)
    assert {"coefficients", "covariance", "objective", "intervals", "certificate", "verdict"} <= set(document)


def test_an_exact_surface_is_recovered() -> None:
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 5)))
    truth = {"E": 1.8, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}
    loss = truth["E"] + truth["A"] / n ** truth["alpha"] + truth["B"] / d ** truth["beta"]
    points = points_at(n=n, d=d, loss=loss)
    found = fit(points, fitted_law_named("chinchilla"), Objective(1e-3)).coefficients
    for name, value in truth.items():
        assert found[name] == pytest.approx(value, rel=1e-4)


@needs_table
def test_the_original_coefficients_are_far_from_the_optimum_and_rounding_makes_them_worse() -> None:
    found = epoch_fit()
    exact = {"E": np.exp(0.5267228), "A": np.exp(6.0073404), "B": np.exp(6.0179186), "alpha": 0.33917084, "beta": 0.2849083}
    printed = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
    for coefficients, objective in ((exact, 0.00123116260), (printed, 0.00412100912)):
        theta = found.law.theta_of({parameter.name: coefficients[parameter.name] for parameter in found.law.parameters})
        residuals = found.points.log_loss - found.law.log_loss(theta, found.points)
        assert found.objective.penalty(residuals).sum() == pytest.approx(objective, rel=1e-6)
    share = exact["beta"] / (exact["alpha"] + exact["beta"])
    ratio = (exact["alpha"] * exact["A"] / (exact["beta"] * exact["B"])) ** (1 / (exact["alpha"] + exact["beta"]))
    assert 5.76e23 / 6 / (ratio * (5.76e23 / 6) ** share) ** 2 == pytest.approx(58.9, abs=0.1)


@needs_table
def test_the_fit_does_not_stop_where_a_mean_reduced_objective_does() -> None:
    assert epoch_fit().value < 0.00110831 * (1 - 0.08)


def test_gadre_s_c4_runs_are_refitted() -> None:
    rows = read_table(GADRE, parse_columns("n=params,d=tokens,loss=loss")).rows
    found = fit(points_of(rows), fitted_law_named("chinchilla"), Objective(1e-3)).coefficients
    for name, value in {"E": 1.6200, "A": 122.55, "B": 242.61, "alpha": 0.25257, "beta": 0.26223}.items():
        assert found[name] == pytest.approx(value, rel=1e-2)
