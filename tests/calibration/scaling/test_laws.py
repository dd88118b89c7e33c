"""Every law: its published numbers, its derivatives, its recovery, and the tables that it refuses."""

import csv
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.scaling.fit import fit
from calibration.scaling.laws import LAWS, fitted_law_named, law_named
from calibration.scaling.laws.base import FittedLaw, log_sum_exp
from calibration.scaling.laws.data_constrained import discounted
from calibration.scaling.laws.joint_moe import JointMoe, for_experts
from calibration.scaling.laws.routed import Routed, effective_parameters
from calibration.scaling.objective import Objective, weighted_slopes
from calibration.scaling.points import Points, points_at
from configuration.errors import ConfigurationError

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "scaling"
CLARK = DATA / "clark2022_routed_curves.csv.gz"
needs_clark = pytest.mark.skipif(not CLARK.is_file(), reason="the table of Clark et al. is not at hand")
LEAST_SQUARES = Objective(float("inf"))
FITTED = [(law, name) for law in LAWS.values() if isinstance(law, FittedLaw) for name in law.published]


def somewhere(count: int = 30) -> Points:
    rng = np.random.default_rng(0)
    n, d, u = (np.exp(rng.normal(mean, 2, count)) for mean in (18, 22, 21))
    return points_at(n=n, d=d, experts=rng.integers(1, 64, count), unique_tokens=np.minimum(u, d))


def crossed(law: FittedLaw, experts: list[float], unique: list[float], noise: float = 0.0) -> Points:
    """A full grid of what the law knows, with losses of its published coefficients."""
    n, d, e, u = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 8e9, 4), np.geomspace(2e9, 1.6e11, 4), experts, unique))
    points = points_at(n=n, d=d, experts=e, unique_tokens=np.minimum(u, d))
    return replace(points, log_loss=law.log_loss(law.published_theta(), points) + noise * np.random.default_rng(0).standard_normal(len(n)))


@pytest.mark.parametrize(("law", "name"), FITTED)
def test_slopes_are_the_derivatives_of_the_loss(law: FittedLaw, name: str) -> None:
    points, theta = somewhere(), law.published_theta(name)
    logs, slopes = law.terms(theta[None], points)
    analytic = weighted_slopes(log_sum_exp(logs)[1], slopes)[0]
    steps = np.eye(len(theta)) * 1e-6
    numeric = np.stack([(law.log_loss(theta + step, points) - law.log_loss(theta - step, points)) / 2e-6 for step in steps], axis=1)
    assert analytic == pytest.approx(numeric, abs=1e-6)


@pytest.mark.parametrize(("law", "name"), FITTED)
def test_units_of_n_and_d_do_not_change_a_loss(law: FittedLaw, name: str) -> None:
    points, theta = somewhere(), law.published_theta(name)
    moved = law.recentred(theta, 1.3, -0.7)
    assert law.log_loss(moved, points.shifted(1.3, -0.7)) == pytest.approx(law.log_loss(theta, points), abs=1e-10)


@pytest.mark.parametrize(
    ("name", "experts", "unique"),
    [("tied", [1.0], [1e12]), ("data-constrained", [1.0], [2e9, 8e9, 4e10]), ("joint-moe", [1, 2, 4, 8, 16, 32], [1e12]), ("joint-moe-fixed", [1, 8], [1e12])],
)
def test_the_published_coefficients_are_recovered_from_their_own_surface(name: str, experts: list[float], unique: list[float]) -> None:
    law = fitted_law_named(name)
    found = fit(crossed(law, experts, unique), law, Objective())
    for coefficient, value in law.published[next(iter(law.published))].coefficients.items():
        assert found.coefficients[coefficient] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ["joint-moe", "data-constrained"])
def test_noise_moves_predictions_by_less_than_the_noise(name: str) -> None:
    law = fitted_law_named(name)
    experts, unique = ([1, 2, 4, 16, 64], [1e12]) if name == "joint-moe" else ([1.0], [2e9, 8e9, 4e10])
    found = fit(crossed(law, experts, unique, noise=0.003), law, LEAST_SQUARES)
    assert np.abs(law.log_loss(found.theta, found.points) - law.log_loss(law.published_theta(), found.points)).mean() < 0.002


def test_terms_in_a_norm_of_one_are_the_joint_law_and_other_norms_are_recovered() -> None:
    law, joint = fitted_law_named("joint-moe-norm"), fitted_law_named("joint-moe-fixed")
    published = joint.published["ludziejewski"].coefficients
    points = crossed(joint, [1, 8, 32], [1e12])
    assert law.log_loss(law.theta_of({**published, "p": 1.0}), points) == pytest.approx(points.log_loss)
    truth = {**published, "p": 1.6}
    theta = law.theta_of(truth)
    assert (law.log_loss(theta, points) < points.log_loss).all(), "the larger p, the nearer the norm is to its larger term"
    assert law.log_loss(law.recentred(theta, 1.3, -0.7), points.shifted(1.3, -0.7)) == pytest.approx(law.log_loss(theta, points))
    logs, slopes = law.terms(theta[None], points)
    steps = np.eye(len(theta)) * 1e-6
    numeric = np.stack([(law.log_loss(theta + step, points) - law.log_loss(theta - step, points)) / 2e-6 for step in steps], axis=1)
    assert weighted_slopes(log_sum_exp(logs)[1], slopes)[0] == pytest.approx(numeric, abs=1e-6)
    found = fit(replace(points, log_loss=law.log_loss(theta, points)), law)
    assert found.coefficients == pytest.approx(truth, rel=1e-3)
    sum_of_terms = fit(points, law)
    assert sum_of_terms.certificate.at_bound == ("p",)
    assert sum_of_terms.coefficients["p"] == 1


def test_experts_as_size_is_nested_in_the_joint_law_and_recovered() -> None:
    law, joint = fitted_law_named("joint-moe-size"), fitted_law_named("joint-moe")
    truth = {"a": 36.0, "alpha": -0.19, "delta": -0.23, "b": 36.0, "beta": -0.18, "c": 1.36}
    whole = {**truth, "gamma": 0.0, "omega": 0.0, "zeta": 0.0, "E_start": 2.0732, "E_max": 290.4521}
    points = crossed(joint, [1, 8], [1e12])
    ordered = {parameter.name: whole[parameter.name] for parameter in joint.parameters}
    found = fit(replace(points, log_loss=joint.log_loss(joint.theta_of(ordered), points)), law)
    assert found.coefficients == pytest.approx(truth, rel=1e-4)
    with pytest.raises(ConfigurationError, match="no coefficients are published"):
        law.published_theta()


TABLE_4 = {  # Ludziejewski et al. 2025, table 4: m, mu, n, nu of L = m N^mu + n D^nu + c
    1: (30.3640, -0.1817, 53.9838, -0.1965),
    32: (16.5424, -0.1557, 234.6726, -0.2652),
}


@pytest.mark.parametrize("experts", TABLE_4)
def test_joint_law_at_one_number_of_experts_is_the_published_chinchilla_law(experts: int) -> None:
    law = law_named("joint-moe")
    assert isinstance(law, JointMoe)
    found = for_experts(law, law.published_theta(), experts)
    assert tuple(found.values()) == pytest.approx(TABLE_4[experts], rel=4e-3)


@pytest.mark.parametrize(("router", "loss"), [("s-base", 2.0489), ("rl-r", 2.1142), ("hash", 2.0737)])
def test_routed_laws_at_1_3_billion_parameters_and_64_experts(router: str, loss: float) -> None:
    law = law_named("routed")
    assert law.loss(law.published_theta(router), points_at(n=1.3088e9, d=130e9, experts=64))[0] == pytest.approx(loss, abs=1e-4)


def test_five_million_parameters_with_128_experts_stand_for_a_55_million_dense_model() -> None:
    law = law_named("routed")
    assert isinstance(law, Routed)
    found = effective_parameters(law, law.published_theta("s-base"), points_at(n=5e6, d=130e9, experts=128))[0]
    assert found == pytest.approx(5.2e7, rel=0.01)
    assert found == pytest.approx(55e6, rel=0.1)


@pytest.mark.parametrize(("epochs", "worth"), [(4, 3.7257), (16, 10.5825), (40, 15.1675)])
def test_repeated_tokens_are_worth_what_muennighoff_found(epochs: int, worth: float) -> None:
    log_effective, _, _ = discounted(np.log(float(epochs)), np.log(1.0), np.log(15.387756))
    assert np.exp(log_effective) == pytest.approx(worth, rel=1e-4)


def test_laws_that_are_only_evaluated_by_hand() -> None:
    here = points_at(n=1e9, d=1e11, experts=8, top_k=2, total=4e9, granularity=4)
    kaplan, fine, sparse = (law_named(name) for name in ("kaplan", "fine-grained", "sparsity"))
    assert kaplan.loss(kaplan.published_theta(), here)[0] == pytest.approx(((8.8e4) ** (0.076 / 0.095) + 540) ** 0.095)
    assert fine.loss(fine.published_theta(), here)[0] == pytest.approx(0.47 + (2.1 / 4**0.58 + 18.1) / 1e9**0.115 + 30.8 / 1e11**0.147)
    by_hand = 0.94 + 16612.5 / 4e9**0.5962 + 5455.67 / 1e11**0.3954 + 0.4598 / 0.25**-0.1666 + 17.26 / (0.25**0.1603 * 4e9**0.1595)
    assert sparse.loss(sparse.published_theta(), here)[0] == pytest.approx(by_hand)
    with pytest.raises(ConfigurationError, match="only its published coefficients"):
        fitted_law_named("kaplan")


@needs_clark
@pytest.mark.parametrize(
    ("router", "rmse", "coefficients"),
    [
        ("S-Base", 0.0040, (-0.0837, -0.1258, 0.0107, 1.1202)),
        ("RL-R", 0.0033, (-0.0835, -0.1279, 0.0117, 1.1143)),
        ("Hash", 0.0032, (-0.0889, -0.1503, 0.0139, 1.1738)),
    ],
)
def test_clark_tables_are_refitted(router: str, rmse: float, coefficients: tuple[float, ...]) -> None:
    found = fit(clark(router), fitted_law_named("routed"), LEAST_SQUARES)
    assert np.sqrt((found.residuals**2).mean()) / np.log(10) <= rmse
    assert tuple(found.coefficients.values())[:4] == pytest.approx(coefficients, abs=3e-4)


def clark(router: str) -> Points:
    """The last step of every run with one expert per token in every or every second layer, and of the dense ones."""
    last: dict[str, dict[str, str]] = {}
    with gzip.open(CLARK, "rt") as file:
        for row in csv.DictReader(file):
            if row["hyper_id"] not in last or int(row["step"]) > int(last[row["hyper_id"]]["step"]):
                last[row["hyper_id"]] = row
    usual = {"k": 1.0, "flop_increase": 1.0}
    rows = [row for row in last.values() if row["router_type"] in (router, "Dense") and all(float(row[name]) == value for name, value in usual.items())]
    rows = [row for row in rows if row["router_type"] == "Dense" or float(row["routing_frequency"]) in (0.5, 1.0)]
    n, e, loss = ([float(row[name]) for row in rows] for name in ("dense_parameter_count", "num_experts", "loss_validation"))
    return points_at(n=n, d=131e9, experts=e, loss=loss)


def test_a_table_with_too_few_levels_for_a_law_is_refused_with_the_reason() -> None:
    joint = fitted_law_named("joint-moe")
    with pytest.raises(ConfigurationError, match=r"at least 4 levels of E \(experts\), the table has 3"):
        fit(crossed(joint, [1, 4, 16], [1e12]), joint)
    with pytest.raises(ConfigurationError, match="fewer than three runs repeat their data"):
        fit(crossed(joint, [1], [1e12, 2e12]), fitted_law_named("data-constrained"))
    two = points_at(n=[1e6, 1e6, 1e8, 1e8], d=[1e8, 1e9, 1e8, 1e9], loss=[4, 3.5, 3, 2.5])
    with pytest.raises(ConfigurationError, match="needs at least 3 levels of N"):
        fit(two, fitted_law_named("chinchilla"))
    ladder = points_at(n=[1e6, 1e7, 1e8, 1e9], d=[2e7, 2e8, 2e9, 2e10], loss=[4, 3.5, 3, 2.5])
    with pytest.raises(ConfigurationError, match="5 parameters need more than 5 distinct settings"):
        fit(ladder, fitted_law_named("chinchilla"))
