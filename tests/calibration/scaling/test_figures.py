"""Figures of a study: every one draws, and shows what it says."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from calibration.scaling.document import Findings
from calibration.scaling.figures import FIGURES
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.objective import Objective
from calibration.scaling.points import points_at
from calibration.scaling.study import Settings, study
from simulator.records.run_table import RunRow, RunTable


@pytest.fixture(scope="module")
def findings() -> Findings:
    n, d, e = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 6.4e7, 4), np.geomspace(1e8, 6.4e9, 4), [1, 8]))
    law = fitted_law_named("joint-moe-fixed")
    loss = law.loss(law.published_theta(), points_at(n=n, d=d, experts=e)) * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(n)))
    rows = tuple(
        RunRow(run=str(i), total_parameters=n[i] * e[i], active_parameters=n[i], tokens=d[i], experts=int(e[i]), validation_loss_nats_per_token=loss[i])
        for i in range(len(n))
    )
    settings = Settings(Objective(float("inf")), holdout_above_flops=6e17, origins=0, resamples=100)
    return study(RunTable(rows, ()), law, settings)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_with_labelled_axes(name: str, findings: Findings) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    FIGURES[name](figure, findings)
    figure.savefig(BytesIO(), format="svg")
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert figure.axes[0].get_ylabel()


def test_held_out_runs_are_marked_apart(findings: Findings) -> None:
    assert len(findings.held_out)
    figure = Figure()
    FIGURES["parity"](figure, findings)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["fitted", "held out"]
