"""The law that the runs choose: which, by which runs, and what is said of it."""

import json
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from calibration.scaling.backtest import backtest
from calibration.scaling.choice import Auto, Choice, best_of, choice_notes, choose, law_or_auto, taken
from calibration.scaling.display import show_fit
from calibration.scaling.forms import Form
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.objective import Objective, Prior
from calibration.scaling.points import Points, points_at
from configuration.errors import ConfigurationError

JOINT = fitted_law_named("joint-moe-fixed")
LEAST_SQUARES = Objective(float("inf"))


def grid(side: int, noise: float, seed: int = 0) -> Points:
    """Runs of 1, 4 and 16 experts by a Chinchilla law that experts do not change."""
    n, d, e = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 6.4e7, side), np.geomspace(1e8, 6.4e9, side), [1.0, 4.0, 16.0]))
    loss = 1.8 + 0.4 * (n / 1e7) ** -0.3 + 0.5 * (d / 1e9) ** -0.6
    return points_at(n=n, d=d, experts=e, loss=loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n))))


def joint_grid(side: int, noise: float, seed: int = 0) -> Points:
    """The same runs by the joint law with its published coefficients."""
    points = grid(side, noise, seed)
    return replace(points, log_loss=JOINT.log_loss(JOINT.published_theta(), points) + noise * np.random.default_rng(seed).standard_normal(len(points)))


def form(law: str, parameters: int, error: float, se: float = 0.0) -> Form:
    return Form(law, parameters, error, se, None)


def test_a_table_of_chinchillas_law_chooses_it_although_experts_vary() -> None:
    points = grid(5, 0.003)
    choice = choose(points, Auto(), LEAST_SQUARES)
    assert choice.law.name == "chinchilla"
    assert choice.judged_from + choice.judged_on == len(points)
    assert "needs a joint law" in choice_notes(choice, points)[0]


def test_a_table_of_the_joint_law_with_enough_runs_chooses_a_joint_law() -> None:
    points = joint_grid(6, 0.003)
    choice = choose(points, Auto(), LEAST_SQUARES)
    assert choice.law.name == "joint-moe-fixed"
    assert choice_notes(choice, points) == []


def test_a_standard_error_from_the_least_fewer_coefficients_win_and_beyond_it_they_do_not() -> None:
    joint, small = form("joint-moe-fixed", 9, 0.020, se=0.003), form("joint-moe-size", 6, 0.0229)
    assert best_of((joint, small, form("tied", 4, 0.0231))) == small
    assert best_of((joint, form("chinchilla", 5, 0.0231))) == joint
    assert best_of((form("no floor", 3, 0.001), joint)) == joint, "a baseline is not a law"


def test_what_is_foretold_has_no_say_in_the_law_that_foretells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    points, asked = joint_grid(4, 0.003), []

    def recorded(law: FittedLaw | Auto, seen: Points, objective: Objective, seed: int) -> tuple[FittedLaw, Choice | None]:
        asked.append(seen)
        return taken(law, seen, objective, seed)

    monkeypatch.setattr("calibration.scaling.backtest.taken", recorded)
    cut = float(np.exp(np.quantile(points.log_c, 0.8)))
    result = backtest(points, Auto(), LEAST_SQUARES, cut_flops=cut, origins=1)
    assert result.held_out is not None
    cuts = [forecasts.cut_flops for forecasts in result.rolling]
    assert len(asked) > len(cuts)
    # First the rolling cuts, then the held-out runs, then what widens them, of which the last is of the runs below the hold-out.
    for seen, limit in zip(asked, [*cuts, cut], strict=False):
        assert seen.log_c.max() <= np.log(limit)
    assert max(seen.log_c.max() for seen in asked) <= np.log(cut)
    # Other losses above the cut change no choice and no interval, only the residuals.
    spoilt = replace(points, log_loss=np.where(points.log_c > np.log(cut), points.log_loss + 0.5, points.log_loss))
    again = backtest(spoilt, Auto(), LEAST_SQUARES, cut_flops=cut, origins=1)
    assert again.held_out is not None
    assert again.held_out.law == result.held_out.law
    assert again.held_out.residual - 0.5 == pytest.approx(result.held_out.residual, abs=1e-12)
    assert (again.widening, again.held_out_widening) == (result.widening, result.held_out_widening)


def test_where_no_form_can_be_judged_the_reasons_are_told() -> None:
    with pytest.raises(ConfigurationError, match="no form can be judged: all runs have the same compute"):
        choose(points_at(n=np.full(9, 1e7), d=1e9, loss=3.0), Auto(), Objective())
    with pytest.raises(ConfigurationError, match="law tied: needs at least 3 levels of N"):
        choose(points_at(n=1e7, d=np.geomspace(1e8, 1e9, 9), loss=3.0), Auto(), Objective())


def test_priors_go_with_a_named_law_and_an_unknown_law_names_auto() -> None:
    with pytest.raises(ConfigurationError, match=r"--prior alpha: .*name the law"):
        choose(grid(5, 0.003), Auto(), Objective(priors={"alpha": Prior(0.35, 0.07)}))
    with pytest.raises(ConfigurationError, match="auto"):
        law_or_auto("best")


def test_the_command_says_which_law_and_why_and_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    points = grid(4, 0.003)
    rows = zip(*(np.exp(values).tolist() for values in (points.log_n, points.log_d, points.log_e, points.log_loss)), strict=True)
    table = tmp_path / "runs.csv"
    table.write_text("n,d,e,loss\n" + "".join(f"{n!r},{d!r},{round(e)},{loss!r}\n" for n, d, e, loss in rows))
    words = [sys.executable, "-m", "calibration", "scaling", "fit", "--runs", str(table), "--columns", "n=n,d=d,e=e,loss=loss", "--law", "auto"]
    words += ["--delta", "inf", "--tokens-per-parameter", "0,1e5", "--resamples", "100", "--origins", "1"]
    first, second = (subprocess.run([*words, "--json"], capture_output=True, check=True).stdout for _ in range(2))
    assert first == second
    document = json.loads(first)
    assert document["choice"]["law"] == document["law"]["name"] == "chinchilla"
    assert {"tied", "joint-moe-fixed"} <= {each["law"] for each in document["forms"]}
    assert len(document["backtest"]["rolling"]["cuts"]) == 1
    text = StringIO()
    show_fit(Console(file=text, width=200), document)
    printed = " ".join(text.getvalue().split())
    assert "law chinchilla was chosen" in printed
    assert "law chosen anew below each cut" in printed
    assert "needs a joint law" in printed
