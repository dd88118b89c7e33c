"""The step page says what leads, what Adam costs, and how far prediction and measurement are apart."""

import json
from pathlib import Path

import pytest

from configuration.errors import ConfigurationError
from reports.page import Table
from reports.step.build import build
from reports.step.memory_timeline import _bands, _line
from reports.step.series import Pair
from reports.step.verdicts import adam, agreement, leader, pace
from simulator.comparison import load_report
from simulator.records.step_report import StepReport

FIGURES = ["memory_at_peak", "memory_timeline", "activations", "time_parts", "time_by_component"]


def _changed(report: StepReport, **memory: object) -> StepReport:
    return report.model_copy(update={"memory": report.memory.model_copy(update=memory)})


def test_the_leader_is_the_category_with_most_bytes_at_the_peak(predicted: Path) -> None:
    report = load_report(predicted)
    at_peak = {"parameters": 10_000_000, "optimizer": 60_000_000, "activations": 30_000_000}
    changed = _changed(report, peak_allocated_bytes=100_000_000, at_peak=at_peak)
    assert leader(changed).startswith("Adam states lead at the peak of 100 MB with 60 MB (60%), then activations with 30 MB (30%)")


def test_adam_is_told_as_a_multiple_of_the_weights(predicted: Path) -> None:
    changed = _changed(load_report(predicted), parameters_bytes=1000, optimizer_bytes=2500)
    assert adam(changed).startswith("Adam's states take 2.5 times the bytes of the weights (2.5 kB beside 1 kB)")


def test_the_largest_part_of_the_step_is_named(predicted: Path) -> None:
    report = load_report(predicted)
    time = report.time.model_copy(
        update={"step_s": 1.0, "forward_s": 0.1, "backward_s": 0.7, "optimizer_s": 0.1, "exposed_communication_s": 0.1, "other_s": 0.0}
    )
    assert "The largest part is backward (70%)" in pace(report.model_copy(update={"time": time}))


def test_the_drawn_line_reaches_the_peak_of_the_report(predicted: Path) -> None:
    memory = load_report(predicted).memory
    x, y = _line(memory.timeline, _bands(memory.timeline))
    assert y.max() == memory.peak_allocated_bytes
    assert len(x) == len(memory.timeline)
    assert (x[1:] > x[:-1]).all()


def test_equality_to_the_byte_is_said(alone: Path, measured: Path) -> None:
    pair = Pair(load_report(alone), load_report(measured))
    memory, time = agreement(pair)
    assert "equals the measured one to the byte, at the same operation" in memory
    assert time == "Time cannot be compared: the prediction is for h100-sxm-80gb, the measurement was made on cpu."


def test_a_difference_in_memory_is_said_with_its_size(alone: Path, measured: Path) -> None:
    real = load_report(measured)
    less = _changed(real, peak_allocated_bytes=real.memory.peak_allocated_bytes // 2)
    assert "is +100.0" in agreement(Pair(load_report(alone), less))[0]


def test_other_plans_are_pointed_at(predicted: Path, measured: Path) -> None:
    assert any(
        sentence.startswith("Careful: the plans differ in") and "ep" in sentence for sentence in agreement(Pair(load_report(predicted), load_report(measured)))
    )


@pytest.mark.parametrize("with_measurement", [False, True])
def test_figures_have_the_same_names_with_and_without_a_measurement(alone: Path, request: pytest.FixtureRequest, with_measurement: bool) -> None:
    page = build(alone, request.getfixturevalue("measured") if with_measurement else None)
    assert [picture.name for picture in page.pictures] == FIGURES


def test_collectives_stand_with_their_hottest_link(predicted: Path) -> None:
    section = next(section for section in build(predicted, None).sections if section.title == "Communication")
    (table,) = section.items
    assert isinstance(table, Table)
    assert table.headers[-1] == "hottest link"
    assert all("->" in row[-1] for row in table.rows)


def test_a_report_of_the_other_kind_is_refused(predicted: Path, measured: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--predicted .*holds a measured report"):
        build(measured, None)
    with pytest.raises(ConfigurationError, match=r"--measured .*holds a predicted report"):
        build(predicted, predicted)


def test_a_file_that_is_no_report_is_refused_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(ConfigurationError, match="no StepReport of schema version 1"):
        build(path, None)
