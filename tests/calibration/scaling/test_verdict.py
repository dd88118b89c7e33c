"""What limits the loss, what more would gain, and which run would tell."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.scaling.bootstrap import Ensemble, Widening, bootstrap
from calibration.scaling.fit import Fit, fit
from calibration.scaling.hull import hull_at
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective
from calibration.scaling.points import points_at
from calibration.scaling.roofline import roofline_at
from calibration.scaling.verdict import verdict_at

TRUTH = {"E": 1.8, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}


@pytest.fixture(scope="module")
def studied() -> tuple[Fit, Ensemble]:
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 6.4e7, 5), np.geomspace(1e8, 6.4e9, 5)))
    loss = TRUTH["E"] + TRUTH["A"] / n ** TRUTH["alpha"] + TRUTH["B"] / d ** TRUTH["beta"]
    loss = loss * np.exp(0.003 * np.random.default_rng(1).standard_normal(len(n)))
    found = fit(points_at(n=n, d=d, loss=loss), fitted_law_named("chinchilla"), Objective(float("inf")))
    return found, bootstrap(found, resamples=300)


def test_gains_per_cost_are_gains_over_the_cost_of_the_doubling(studied: tuple[Fit, Ensemble]) -> None:
    found, ensemble = studied
    c = found.coefficients
    verdict = verdict_at(found, ensemble, points_at(n=1e7, d=1e9), hours=lambda n, d, e: 6 * n * d / 3.6e15)
    by_n, by_d = verdict.gains
    assert by_n.nats == pytest.approx(c["A"] / 1e7 ** c["alpha"] * (1 - 2 ** -c["alpha"]))
    assert by_n.nats_per_flop == pytest.approx(by_n.nats / 6e16)
    assert by_n.nats_per_byte == pytest.approx(by_n.nats / (16 * 1e7))
    assert by_n.nats_per_hour == pytest.approx(by_n.nats * 3.6e15 / 6e16)
    assert by_d.nats_per_byte is None, "tokens take no memory"


def test_the_floor_and_its_share_add_up(studied: tuple[Fit, Ensemble]) -> None:
    verdict = verdict_at(*studied, points_at(n=1e7, d=1e9))
    assert verdict.floor is not None
    assert verdict.floor_share == pytest.approx(verdict.floor / verdict.loss)


def test_a_verdict_abstains_where_the_interval_of_rho_holds_one(studied: tuple[Fit, Ensemble]) -> None:
    found, ensemble = studied
    roofline = roofline_at(found, ensemble, points_at(n=1e7, d=1e9))
    assert roofline is not None
    assert roofline.balanced is not None
    n = np.sqrt(1e16 / roofline.balanced)
    verdict = verdict_at(found, ensemble, points_at(n=n, d=1e16 / n))
    assert verdict.rho == pytest.approx(1, abs=0.02)
    assert verdict.state == "cannot tell"


def test_widening_moves_the_ends_of_an_interval_away_from_the_estimate(studied: tuple[Fit, Ensemble]) -> None:
    found, ensemble = studied
    point = points_at(n=1e7, d=1e9)
    narrow, wide = (verdict_at(found, replace(ensemble, widening=Widening(factor)), point) for factor in (1.0, 2.0))
    for side in (0, 1):
        assert np.log(wide.loss_interval[side] / wide.loss) == pytest.approx(2 * np.log(narrow.loss_interval[side] / narrow.loss))


def test_a_loss_is_promised_no_more_tightly_than_forecasts_were_right(studied: tuple[Fit, Ensemble]) -> None:
    found, ensemble = studied
    inside, far = points_at(n=1e7, d=1e9), points_at(n=1e9, d=1e11)
    known = replace(ensemble, widening=Widening(least=0.05, log_nd=float(np.log(1e16))))
    for point, least in ((inside, 0.05), (far, 0.05 * (1 + np.log(1e4)))):
        estimate = found.law.log_loss(found.theta, point)
        low, high = known.log_loss_interval(found.law.log_loss(ensemble.refits, point), estimate, point, 0.8)
        assert np.concatenate([low, high]) == pytest.approx(np.concatenate([estimate - least, estimate + least]))
        verdict = verdict_at(found, known, point)
        assert np.log(verdict.loss_interval) == pytest.approx(estimate + 1.5293 * np.array([-least, least]), rel=1e-3)


def test_the_roofline_lies_above_both_of_its_limits_and_is_lowest_where_rho_is_one(studied: tuple[Fit, Ensemble]) -> None:
    roofline = roofline_at(*studied, points_at(n=1e7, d=1e9))
    assert roofline is not None
    assert roofline.balanced is not None
    loss = np.array(roofline.loss)
    assert (loss > np.maximum(roofline.parameter_limit, roofline.data_limit)).all()
    lowest = roofline.tokens_per_parameter[int(loss.argmin())]
    assert roofline.balanced == pytest.approx(lowest, rel=0.25)
    assert np.all(np.diff(roofline.rho) > 0), "more tokens per parameter: parameters bind more"


def test_the_hull_knows_inside_outside_and_a_table_on_one_ray() -> None:
    square = points_at(n=[1e6, 1e6, 1e8, 1e8], d=[1e8, 1e10, 1e8, 1e10])
    assert hull_at(square, ("n", "d"), points_at(n=1e7, d=1e9)).inside
    outside = hull_at(square, ("n", "d"), points_at(n=1e9, d=1e10))
    assert not outside.inside
    assert outside.compute_factor == pytest.approx(10)
    ray = points_at(n=[1e6, 1e7, 1e8], d=[2e7, 2e8, 2e9])
    assert hull_at(ray, ("n", "d"), points_at(n=3e7, d=6e8)).inside
    assert not hull_at(ray, ("n", "d"), points_at(n=3e7, d=6e9)).inside


def test_the_proposed_run_shrinks_the_interval_of_what_it_is_for(studied: tuple[Fit, Ensemble]) -> None:
    found, ensemble = studied
    point = points_at(n=3e7, d=3e9)
    proposal = next(run for run in verdict_at(found, ensemble, point).next_runs if run.target == "balance of N and D")
    assert 0 < proposal.variance_removed < 1
    assert found.points.log_c.min() - 1e-6 <= np.log(proposal.flops) <= found.points.log_c.max() + 1e-6

    n, d, loss = (np.exp(getattr(found.points, f"log_{name}")) for name in ("n", "d", "loss"))
    told = float(found.law.loss(found.theta, points_at(n=proposal.n, d=proposal.d))[0])
    more = points_at(n=[*n, *[proposal.n] * 4], d=[*d, *[proposal.d] * 4], loss=[*loss, *[told] * 4])
    again = bootstrap(fit(more, found.law, found.objective), resamples=300)
    before, after = (np.ptp(np.log(verdict_at(f, e, point).rho_interval)) for f, e in ((found, ensemble), (fit(more, found.law, found.objective), again)))
    assert after < before
