"""Dividing a budget: closed forms, published optima, limits, and other methods on the same table."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.scaling.allocation import Budget, Memory, allocate, expert_share
from calibration.scaling.backtest import widening
from calibration.scaling.cross_checks import cross_checks, envelope, isoflop_optima, power_law
from calibration.scaling.laws import fitted_law_named, law_named
from calibration.scaling.optimal import source_of_table
from calibration.scaling.points import Points, points_at
from calibration.scaling.study import Settings
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunRow, RunTable

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "scaling"
EPOCH, PORIAN = DATA / "chinchilla_epoch_extracted.csv", DATA / "porian2024_isoflop_optima.csv"
CHINCHILLA = law_named("chinchilla")
THETA = CHINCHILLA.published_theta("besiroglu")


def isoflops() -> Points:
    """Nine sizes around the optimum of each of five budgets, losses of the published refit."""
    c, m = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e18, 1e22, 5), np.geomspace(5, 80, 9)))
    n = np.sqrt(c / (6 * m))
    return points_at(n=n, d=n * m, loss=CHINCHILLA.loss(THETA, points_at(n=n, d=n * m)))


def test_the_search_finds_the_closed_form() -> None:
    c = CHINCHILLA.coefficients_of(THETA)
    ratio = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
    (choice,) = allocate(CHINCHILLA, THETA, Budget(1e21), [1.0])
    assert choice.n == pytest.approx(ratio * (1e21 / 6) ** (c["beta"] / (c["alpha"] + c["beta"])), rel=1e-4)
    assert 6 * choice.n * choice.d == pytest.approx(1e21)
    assert choice.band[0] < choice.n < choice.band[1]


def test_hoffmanns_coefficients_contradict_their_own_twenty_tokens_per_parameter() -> None:
    (choice,) = allocate(CHINCHILLA, CHINCHILLA.published_theta("hoffmann"), Budget(5.76e23), [1.0])
    assert choice.tokens_per_parameter == pytest.approx(58.9, abs=0.1)


@pytest.mark.parametrize(
    ("flops", "experts", "n", "d"), [(1e20, 1, 1.7e9, 9.7e9), (1e21, 8, 3.8e9, 44.3e9), (1e22, 32, 12.2e9, 136.9e9), (1e20, 8, 0.99e9, 17e9)]
)
def test_joint_law_optima_are_the_published_ones(flops: float, experts: float, n: float, d: float) -> None:
    joint = law_named("joint-moe")
    (choice,) = allocate(joint, joint.published_theta(), Budget(flops), [experts])
    assert (choice.n, choice.d) == pytest.approx((n, d), rel=0.03)


def test_serving_many_tokens_moves_the_optimum_to_a_smaller_model_with_the_stated_balance() -> None:
    served = 1e12
    (plain,) = allocate(CHINCHILLA, THETA, Budget(1e22), [1.0])
    (choice,) = allocate(CHINCHILLA, THETA, Budget(1e22, inference_tokens=served), [1.0])
    assert choice.n < plain.n
    c = CHINCHILLA.coefficients_of(THETA)
    rho = c["alpha"] * c["A"] / choice.n ** c["alpha"] / (c["beta"] * c["B"] / choice.d ** c["beta"])
    assert rho == pytest.approx(1 + served / (3 * choice.d), rel=1e-2)


def test_a_choice_from_a_table_is_as_sure_as_forecasts_inside_it_were() -> None:
    points = isoflops()
    losses = points.log_loss + 0.01 * np.random.default_rng(0).standard_normal(len(points))
    rows = [
        RunRow(run=str(row), total_parameters=n, active_parameters=n, tokens=d, validation_loss_nats_per_token=loss)
        for row, (n, d, loss) in enumerate(np.exp([points.log_n, points.log_d, losses]).T.tolist())
    ]
    law, settings = fitted_law_named("chinchilla"), Settings(resamples=50)
    source = source_of_table(RunTable(tuple(rows), ()), law, settings)
    assert source.ensemble is not None
    assert source.points is not None
    assert source.ensemble.widening == widening(source.points, law, settings.objective)
    assert source.ensemble.widening.least > 0


def test_a_memory_limit_binds_experts_before_it_binds_a_dense_model() -> None:
    joint = law_named("joint-moe")
    memory = Memory(limit_bytes=16 * 2e9, expert_share=0.6)
    choices = allocate(joint, joint.published_theta(), Budget(1e20), [1, 8, 32], memory=memory)
    assert all(choice.total_parameters is not None and choice.total_parameters <= 2e9 * 1.001 for choice in choices)
    assert {choice.experts: choice.limited_by_memory for choice in choices} == {1: False, 8: True, 32: True}
    with pytest.raises(ConfigurationError, match="total parameters grow with experts"):
        allocate(joint, joint.published_theta(), Budget(1e20), [8], memory=Memory(limit_bytes=1e9))


def test_the_share_of_experts_is_read_from_total_and_active_counts() -> None:
    # 40 of 100 active parameters are one expert of eight: 60 + 8 * 40 in all.
    assert expert_share(points_at(n=100, d=1, experts=8, total=380)) == pytest.approx(0.4)
    assert expert_share(points_at(n=100, d=1)) is None


def test_parabolas_and_envelope_agree_with_the_law_on_its_own_surface() -> None:
    points = isoflops()
    log_c, log_n = isoflop_optima(points)
    assert len(log_c) == 5
    line = power_law(log_c, log_n)
    assert line is not None
    assert line.exponent == pytest.approx(0.3658 / (0.3478 + 0.3658), abs=0.01)
    (choice,) = allocate(CHINCHILLA, THETA, Budget(1e21), [1.0])
    checks = cross_checks(points, CHINCHILLA, THETA, 1e21, 1.0, choice.loss)
    assert [check.agrees for check in checks] == [True, True]
    assert len(envelope(points)[0]) >= 5


def test_a_disagreement_is_flagged() -> None:
    theta = CHINCHILLA.published_theta("hoffmann-printed")
    (choice,) = allocate(CHINCHILLA, theta, Budget(1e24), [1.0])
    assert not cross_checks(isoflops(), CHINCHILLA, theta, 1e24, 1.0, choice.loss)[0].agrees


@pytest.mark.skipif(not PORIAN.is_file(), reason="the table of Porian et al. is not at hand")
def test_the_five_steps_from_kaplan_to_chinchilla() -> None:
    with PORIAN.open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "rw" and row["n"]]
    found = []
    for hparams, warmup, decay, counted in (
        ("base", "long", "kaplan", "kaplan"), ("base", "long", "kaplan", "standard"), ("base", "short", "kaplan", "standard"),
        ("base", "short", "chinchilla", "standard"), ("tuned", "short", "const", "standard"),
    ):  # fmt: skip
        step = [row for row in rows if (row["hparams"], row["warmup"], row["decay"], row["param_count"]) == (hparams, warmup, decay, counted)]
        line = power_law(*(np.log([float(row[name]) for row in step]) for name in ("flops", "n")))
        assert line is not None
        found.append(line.exponent)
    assert found == pytest.approx([0.8338, 0.7009, 0.6035, 0.5714, 0.4970], abs=5e-4)


@pytest.mark.skipif(not EPOCH.is_file(), reason="the extracted Chinchilla table is not at hand")
def test_the_command_divides_chinchillas_budget() -> None:
    words = [sys.executable, "-m", "calibration", "scaling", "optimal", "--runs", str(EPOCH), "--columns", "n=Model Size,c=Training FLOP,loss=loss"]
    words += ["--flops", "5.76e23", "--resamples", "100", "--json"]
    document = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    (choice,) = document["choices"]
    assert choice["tokens_per_parameter"] == pytest.approx(17.9, abs=0.1)
    assert choice["n_interval"][0] < choice["n"] < choice["n_interval"][1]
    assert "Extrapolation" in choice["beyond"]
    assert {check["method"] for check in document["cross_checks"]} == {"isoFLOP parabolas", "envelope of runs"}


def test_a_published_set_needs_no_table_and_an_unknown_one_is_told() -> None:
    words = [sys.executable, "-m", "calibration", "scaling", "optimal", "--flops", "1e20", "--law", "joint-moe"]
    good = subprocess.run([*words, "--published", "ludziejewski", "--experts", "1,8"], capture_output=True, text=True, check=False)
    assert good.returncode == 0
    assert "9.9e+08" in good.stdout
    bad = subprocess.run([*words, "--published", "nobody"], capture_output=True, text=True, check=False)
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
    assert "ludziejewski" in bad.stderr
