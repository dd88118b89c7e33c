"""Comparison of forms, and the test of a law against the scatter of seeds."""

import numpy as np
import pytest

from calibration.scaling.fit import fit
from calibration.scaling.forms import compare, lack_of_fit
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective
from calibration.scaling.points import Points, points_at

LAWS = tuple(fitted_law_named(name) for name in ("chinchilla", "tied"))


def grid(alpha: float, beta: float, seeds: int = 1, noise: float = 0.0) -> Points:
    n, d = (np.repeat(axis.ravel(), seeds) for axis in np.meshgrid(np.geomspace(1e6, 6.4e7, 5), np.geomspace(1e8, 6.4e9, 5)))
    loss = 1.8 + 0.4 * (n / 1e7) ** -alpha + 0.5 * (d / 1e9) ** -beta
    return points_at(n=n, d=d, loss=loss * np.exp(noise * np.random.default_rng(0).standard_normal(len(n))))


def test_the_form_that_made_the_runs_wins_and_a_floor_is_missed() -> None:
    forms = compare(grid(0.3, 0.6, noise=1e-5), LAWS, Objective(float("inf")))
    assert [form.law for form in forms] == ["chinchilla", "tied", "no floor"]
    aicc = [form.aicc for form in forms]
    assert None not in aicc
    assert aicc == sorted(aicc, key=float)


def test_a_law_that_cannot_be_fitted_says_why() -> None:
    few = grid(0.3, 0.6).take(np.arange(6))
    failed = {form.law: form.failure for form in compare(few, LAWS, Objective())}
    assert failed["no floor"] is None
    assert "chinchilla" in str(failed["chinchilla"])


def test_runs_of_one_budget_are_held_out_together() -> None:
    n, flops = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e8, 6), [1e17, 3e17, 1e18]))
    d = flops / 6 / n
    points = points_at(n=n, d=d, loss=1.8 + 0.4 * (n / 1e7) ** -0.3 + 0.5 * (d / 1e9) ** -0.6)
    assert all(form.held_out_error is not None and np.isfinite(form.held_out_error) for form in compare(points, LAWS[:1], Objective()))
    alone = compare(points.take(flops == 1e18), LAWS, Objective())
    assert {form.failure for form in alone} == {"all runs have the same compute"}


def test_lack_of_fit_by_hand() -> None:
    points = points_at(n=[1, 1, 2, 2, 4, 4], d=1.0)
    residuals = np.array([0.1, 0.3, -0.3, -0.1, 0.1, 0.3])
    # Pure error: three pairs, each 2 · 0.1²; misfit: 2 (0.2² + 0.2² + 0.2²), one parameter.
    found = lack_of_fit(points, residuals, 1)
    assert found is not None
    assert (found.misfit_freedom, found.pure_error_freedom) == (2, 3)
    assert found.f == pytest.approx((0.24 / 2) / (0.06 / 3))
    assert lack_of_fit(points.take([0, 2, 4]), residuals[[0, 2, 4]], 1) is None


def test_the_true_law_is_not_rejected_and_a_wrong_one_is() -> None:
    points = grid(0.3, 0.7, seeds=3, noise=0.002)
    chances = {}
    for law in LAWS:
        found = fit(points, law, Objective(float("inf")))
        test = lack_of_fit(points, found.residuals, len(found.theta))
        assert test is not None
        chances[law.name] = test.p_value
    assert chances["chinchilla"] > 0.05 > chances["tied"]
