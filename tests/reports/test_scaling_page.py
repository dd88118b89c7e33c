"""The scaling page: local slopes by hand, the fitted law, loss curves that start at ln V."""

import json
import math
from pathlib import Path

import pytest

from configuration.errors import ConfigurationError
from reports.page import Page, Section, Table, render
from reports.scaling import tables
from reports.scaling.build import build
from reports.scaling.logs import Curve, curves
from reports.scaling.settings import settings_of
from reports.scaling.slopes import last_doublings, series, slopes, straightness
from reports.scaling.verdicts import starts, straight, which
from simulator.records.run_table import RunRow, write_rows


def _row(n: float, d: float, loss: float, **more: object) -> RunRow:
    name = f"n{n:g}-d{d:g}-s{more.get('seed', 0)}"
    return RunRow(run=name, total_parameters=2 * n, active_parameters=n, tokens=d, validation_loss_nats_per_token=loss, **more)


def _grid(error: float | None = 0.001, *, slope_n: float = 0.1, slope_d: float = 0.3) -> list[RunRow]:
    """Loss that falls by ``slope_n`` nats per doubling of N and ``slope_d`` per doubling of D."""
    return [
        _row(1e6 * 2**i, 1e6 * 2**j, 5 - slope_n * i - slope_d * j, validation_loss_standard_error_nats_per_token=error) for i in range(4) for j in range(3)
    ]


def _law() -> list[RunRow]:
    """Losses of L = 1.8 + 40 / N^0.3 + 300 / D^0.4, to five digits."""
    sizes = [(n, d) for n in (2e6, 4e6, 8e6, 1.6e7) for d in (5e6, 1e7, 2e7, 4e7)]
    return [_row(n, d, round(1.8 + 40 / n**0.3 + 300 / d**0.4, 5)) for n, d in sizes]


def test_a_slope_is_nats_per_doubling() -> None:
    settings = settings_of(_grid(), "active")
    assert [slope.gain for slope in slopes(settings, "parameters")] == pytest.approx([0.1] * 9)
    assert [slope.gain for slope in slopes(settings, "tokens")] == pytest.approx([0.3] * 8)


def test_its_error_adds_those_of_both_ends() -> None:
    (slope,) = slopes(settings_of([_row(1e6, 1e6, 4.0, validation_loss_standard_error_nats_per_token=0.03),
                                   _row(4e6, 1e6, 3.8, validation_loss_standard_error_nats_per_token=0.04)], "active"), "parameters")  # fmt: skip
    assert slope.doublings == 2
    assert slope.gain == pytest.approx(0.1)
    assert slope.error == pytest.approx(0.05 / 2)


def test_gain_per_flop_is_what_the_larger_run_spent_more() -> None:
    (slope,) = slopes(settings_of([_row(1e6, 1e6, 4.0), _row(2e6, 1e6, 3.4)], "active"), "parameters")
    assert slope.gain_per_flop == pytest.approx(0.6 / (6 * 1e6 * 1e6))


def test_seeds_of_one_setting_are_averaged_and_their_spread_is_the_error() -> None:
    (setting,) = settings_of([_row(1e6, 1e6, loss, seed=seed) for seed, loss in enumerate((3.9, 4.0, 4.1))], "active")
    assert setting.loss == pytest.approx(4.0)
    assert setting.error == pytest.approx(0.1 / math.sqrt(3))
    assert len(setting.runs) == 3


def test_other_experts_are_another_series() -> None:
    rows = [_row(1e6, 1e6, 4.0, experts=8, top_k=2), _row(2e6, 1e6, 3.9, experts=16, top_k=2)]
    assert series(settings_of(rows, "active"), "parameters") == []


def test_the_steeper_slope_is_the_one_to_scale() -> None:
    settings = settings_of(_grid(), "active")
    both = last_doublings(settings)
    assert both is not None
    assert both[0].high is both[1].high
    assert which(settings).endswith("scale tokens next.")
    assert which(settings_of(_grid(slope_n=0.5), "active")).endswith("scale parameters next.")


def test_slopes_within_their_errors_are_not_told_apart() -> None:
    assert "cannot be told apart" in which(settings_of(_grid(0.2), "active"))


def test_a_table_without_errors_claims_no_certainty() -> None:
    assert "no errors to say how certain" in which(settings_of(_grid(None), "active"))


def test_one_quantity_varied_does_not_say_which_to_scale() -> None:
    rows = [row for row in _grid() if row.tokens == 1e6]
    assert "Which to scale needs runs that differ in tokens alone" in which(settings_of(rows, "active"))


def test_a_loss_that_falls_by_the_same_amount_each_doubling_is_straight_in_the_logarithm() -> None:
    found = straightness(settings_of(_grid(), "active"), "parameters")
    assert found is not None
    assert found.logarithmic == pytest.approx(1)
    assert found.plain < 0.95


def test_a_loss_that_first_falls_and_then_stays_is_called_no_line() -> None:
    losses = (5.0, 4.6, 4.6, 4.6, 4.6, 4.6)
    found = straightness(settings_of([_row(1e6 * 2**i, 1e6, loss) for i, loss in enumerate(losses)], "active"), "parameters")
    assert found is not None
    assert "a straight line neither in the count nor in its logarithm" in straight(found)


def test_the_law_behind_the_table_is_found_and_judged(tmp_path: Path) -> None:
    write_rows(tmp_path / "runs.csv", _law())
    page = build(tmp_path / "runs.csv", None, "chinchilla", "active", None)
    names = ["loss_against_parameters", "loss_against_tokens", "gains", "law", "roofline", "slopes", "residuals", "parity", "isoflops"]
    assert [picture.name for picture in page.pictures] == names
    # At N = 16 M, D = 40 M: 40 × 0.3 / N^0.3 = 0.0828 over 300 × 0.4 / D^0.4 = 0.1092 is 0.758.
    assert any("rho = 0.758" in verdict for verdict in page.verdicts)
    found = {table.caption: table for section in page.sections for table in section.items if isinstance(table, Table)}
    forecasts = found["Forecasts of runs above rolling cuts, from those below"]
    assert forecasts.rows[-1][0] == "all"
    assert int(forecasts.rows[-1][1]) == sum(int(row[1]) for row in forecasts.rows[:-1])
    assert any(f"of {forecasts.rows[-1][1]} lie in their 80 % intervals" in verdict for verdict in page.verdicts)
    slopes_table = found["Local slopes: loss gained between neighbours"]
    assert slopes_table.headers[1] == "experts"
    assert not slopes_table.folded


def test_a_table_of_many_rows_is_folded() -> None:
    rows = [_row(1e6 * 2**i, 1e6 * 2**j, 5 - 0.1 * i - 0.3 * j) for i in range(6) for j in range(5)]
    table = tables.settings(settings_of(rows, "active"))
    assert table.folded
    page = Page("p", "t", "s", (), (Section("Runs", (), (table,)),), (), ())
    assert "<summary>Settings (30 rows)</summary>" in render(page)


def test_too_few_settings_give_a_page_without_a_law_and_say_why(tmp_path: Path) -> None:
    write_rows(tmp_path / "runs.csv", [row for row in _grid() if row.tokens == 1e6])
    page = build(tmp_path / "runs.csv", None, "chinchilla", "active", None)
    assert any(verdict.startswith("No law fitted: law chinchilla: needs at least 3 levels of") for verdict in page.verdicts)
    assert "law" not in [picture.name for picture in page.pictures]


def test_runs_that_start_near_ln_v_are_said_to(tmp_path: Path) -> None:
    row = _row(1e6, 4096, 3.0, vocabulary=2048, batch_tokens=1024)
    (tmp_path / row.run).mkdir()
    records = [{"step": 0, "validation_loss_nats_per_token": 9.0}, {"step": 1, "loss_nats_per_token": 7.7}, {"step": 2, "loss_nats_per_token": 6.0}]
    (tmp_path / row.run / "log.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records) + '{"step": 3, "loss_na')
    found, absent = curves([row, _row(2e6, 4096, 3.0)], tmp_path)
    assert found == [Curve(row.run, (1024, 2048), (7.7, 6.0), 2048)]
    assert absent == ["n2e+06-d4096-s0"]
    assert starts(found).startswith("All 1 runs start near ln V = 7.625")


def test_a_run_that_starts_elsewhere_is_named() -> None:
    assert "Not near it: strange (12.000)" in starts([Curve("strange", (1,), (12.0,), 2048), Curve("usual", (1,), (7.6,), 2048)])


def test_logs_of_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no log of any run of the table"):
        curves([_row(1e6, 1e6, 3.0)], tmp_path)


def test_an_unknown_law_or_count_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    write_rows(tmp_path / "runs.csv", _grid())
    with pytest.raises(ConfigurationError, match="chinchilla"):
        build(tmp_path / "runs.csv", None, "chinchila", "active", None)
    with pytest.raises(ConfigurationError, match="active-non-embedding"):
        build(tmp_path / "runs.csv", None, "chinchilla", "activ", None)


@pytest.mark.parametrize(("law", "told"), [("chinchilla", "law chinchilla has no such parameter"), ("auto", "name the law")])
def test_a_prior_that_the_law_has_no_place_for_is_refused(tmp_path: Path, law: str, told: str) -> None:
    write_rows(tmp_path / "runs.csv", _grid())
    with pytest.raises(ConfigurationError, match=told):
        build(tmp_path / "runs.csv", None, law, "active", None, priors=("gamma=0.1:0.1",))


def test_a_declared_prior_is_said(tmp_path: Path) -> None:
    write_rows(tmp_path / "runs.csv", _law())
    page = build(tmp_path / "runs.csv", None, "chinchilla", "active", None, priors=("alpha=0.5:0.001",))
    assert "prior alpha ~ 0.5 ± 0.001" in render(page)


@pytest.mark.slow
def test_published_losses_can_be_drawn_from_a_foreign_table() -> None:
    table = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "scaling" / "chinchilla_epoch_extracted.csv"
    if not table.is_file():
        pytest.skip("the table of published losses is not on this machine")
    page = build(table, None, "chinchilla", "active", "n=Model Size,flops=Training FLOP,loss=loss")
    assert page.subject.startswith("245 runs")
    assert any(verdict.startswith("Fitted L = E + A / N^alpha + B / D^beta") for verdict in page.verdicts)
