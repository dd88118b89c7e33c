"""A device profile fitted to measured steps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.device.fit import fit
from calibration.device.observations import EXPONENTIALS, TRAFFIC, Observation, Quantity, step_observations
from calibration.device.profile import build_profile, to_yaml
from calibration.device.reports import MeasuredStep, load_steps
from calibration.device.sources import gather
from configuration.errors import ConfigurationError
from configuration.files import PresetFolder
from simulator.components import Kind
from simulator.records.step_report import StepReport
from simulator.specs.device import DeviceSpec

Writer = Callable[[dict[str, StepReport], str], Path]


def profile_of(steps: list[MeasuredStep]) -> tuple[DeviceSpec, list[str]]:
    sources = gather(steps, [], "fitted", "2026-01-01")
    profile = build_profile(fit(sources.observations, sources.own_launches), sources.origin, None)
    return profile.device, profile.notes


def test_a_device_that_obeys_the_model_is_found_again(truth: DeviceSpec, reports: dict[str, StepReport], write: Writer) -> None:
    device, _ = profile_of(load_steps([write(reports, "fit")]))
    assert device.launch_overhead_s.value == pytest.approx(truth.launch_overhead_s.value, rel=0.01)
    assert truth.exponentials_per_s is not None
    assert device.exponentials_per_s is not None
    assert device.exponentials_per_s.value == pytest.approx(truth.exponentials_per_s.value, rel=0.02)
    for kind in (Kind.GEMM, Kind.GROUPED_GEMM, Kind.ATTENTION):
        assert device.kernels[kind].flops_per_s["fp32"].value == pytest.approx(truth.kernels[kind].flops_per_s["fp32"].value, rel=0.05)
    assert device.kernels[Kind.ATTENTION].backward_flops_per_s["fp32"].value == pytest.approx(1.7e10, rel=0.05)
    for kind in (Kind.POINTWISE, Kind.SCATTER, Kind.SORT, Kind.OPTIMIZER):
        assert device.kernels[kind].bytes_per_s.value == pytest.approx(truth.kernels[kind].bytes_per_s.value, rel=0.05)


def test_work_of_all_lines_is_the_work_of_the_step(reports: dict[str, StepReport], write: Writer) -> None:
    (step,) = load_steps([write({"wide": reports["wide"]}, "one")])
    observations = step_observations(step.report, step.model, step.plan, "wide")
    traffic = sum(amount for observation in observations for quantity, amount in observation.work.items() if quantity.term in TRAFFIC)
    flops = sum(amount for observation in observations for quantity, amount in observation.work.items() if "flops" in quantity.term)
    assert traffic == pytest.approx(sum(row.traffic_bytes for row in step.report.time.rows))
    assert flops == pytest.approx(sum(row.flops for row in step.report.time.rows))
    assert sum(observation.seconds for observation in observations) == pytest.approx(step.report.time.step_s)


def test_one_disturbed_line_does_not_bend_the_fit() -> None:
    launches, moved = Quantity("launches", Kind.POINTWISE), Quantity("bytes", Kind.POINTWISE)
    # 2 µs a launch and 1 ns a byte: 3 launches and 1000 bytes take 7 µs.
    observations = [
        Observation("test", f"{n}", 2e-6 * n + 1e-9 * size, 2e-6 * n + 1e-9 * size, {launches: n, moved: size}) for n in (1, 3, 10) for size in (1e3, 1e4, 1e5)
    ]
    disturbed = observations[4]
    observations[4] = Observation("test", "disturbed", 5 * disturbed.seconds, 5 * disturbed.seconds, disturbed.work)
    found = fit(observations).coefficients
    assert found[launches].value == pytest.approx(2e-6, rel=0.02)
    assert found[moved].value == pytest.approx(1e-9, rel=0.02)


def test_standard_errors_cover_the_truth() -> None:
    launches, moved = Quantity("launches", Kind.POINTWISE), Quantity("bytes", Kind.POINTWISE)
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        observations = []
        for _ in range(60):
            work = {launches: float(random.integers(1, 20)), moved: float(10 ** random.uniform(3, 5))}
            seconds = (2e-6 * work[launches] + 1e-9 * work[moved]) * (1 + 0.05 * random.standard_normal())
            observations.append(Observation("test", "", seconds, seconds, work))
        found = fit(observations).coefficients[moved]
        assert found.standard_error is not None
        inside += abs(found.value - 1e-9) < 1.96 * found.standard_error
    assert inside >= 85


def test_a_kind_that_never_ran_is_said_and_takes_the_shared_rate(truth: DeviceSpec, reports: dict[str, StepReport], write: Writer) -> None:
    steps = load_steps([write(reports, "fit")])
    sources = gather(steps, [], "fitted", "2026-01-01")
    without = [
        Observation(o.source, o.name, o.seconds, o.scale_s, o.work) for o in sources.observations if not any(quantity.kind is Kind.SORT for quantity in o.work)
    ]
    profile = build_profile(fit(without), sources.origin, None)
    sort, pointwise = (profile.device.kernels[kind].bytes_per_s for kind in (Kind.SORT, Kind.POINTWISE))
    assert sort.origin == "assumed"
    assert "no operation of this kind was measured" in sort.reference
    assert any("sort" in note for note in profile.notes)
    assert pointwise.origin == "fitted"


def test_bytes_that_cannot_be_told_from_flops_are_said(truth: DeviceSpec, reports: dict[str, StepReport], write: Writer) -> None:
    gemm = {Quantity("flops", Kind.GEMM, "fp32"): 1e9, Quantity("bytes", Kind.GEMM): 1e7, Quantity("launches", Kind.GEMM): 1.0}
    moves = {Quantity("bytes", Kind.POINTWISE): 1e7, Quantity("launches", Kind.POINTWISE): 1.0}
    rows = [({quantity: n * amount for quantity, amount in work.items()}, seconds * n) for n in (1, 2, 3) for work, seconds in ((gemm, 0.021), (moves, 0.002))]
    found = fit([Observation("test", "", seconds, seconds, work) for work, seconds in rows]).coefficients
    assert found[Quantity("bytes", Kind.GEMM)].standard_error is None
    assert "share" in found[Quantity("bytes", Kind.GEMM)].reason


def test_the_profile_is_a_file_that_device_takes(reports: dict[str, StepReport], write: Writer, tmp_path: Path) -> None:
    device, _ = profile_of(load_steps([write(reports, "fit")]))
    path = tmp_path / "device.yaml"
    path.write_text(to_yaml(device), encoding="utf-8")
    assert PresetFolder("device", DeviceSpec, tmp_path).load(str(path)) == device
    assert device.machine == "a machine, 1 thread"
    assert "torch 0" in device.launch_overhead_s.reference


def test_reports_without_time_or_of_other_models_are_refused(reports: dict[str, StepReport], write: Writer) -> None:
    wrong = reports["small"].model_copy(update={"parameters": 7})
    with pytest.raises(ConfigurationError, match="the report has 7"):
        load_steps([write({"wrong": wrong}, "wrong")])
    predicted = reports["small"].model_copy(update={"kind": "predicted"})
    with pytest.raises(ConfigurationError, match="kind is 'predicted'"):
        load_steps([write({"predicted": predicted}, "predicted")])


def test_measurements_of_two_machines_are_refused(reports: dict[str, StepReport], write: Writer) -> None:
    other = reports["long"].model_copy(update={"provenance": reports["long"].provenance.model_copy(update={"machine": "another"})})
    with pytest.raises(ConfigurationError, match="several machines"):
        gather(load_steps([write({"a": reports["small"], "b": other}, "two")]), [], "fitted", "2026-01-01")


def test_exponentials_are_those_of_softmax_and_silu(reports: dict[str, StepReport], write: Writer) -> None:
    (step,) = load_steps([write({"default": reports["default"]}, "one")])
    rows = {observation.name: observation.work for observation in step_observations(step.report, step.model, step.plan, "default")}
    assert rows["cross_entropy forward"][EXPONENTIALS] == 2048 * 2048  # tokens × vocabulary
    assert rows["activation forward"][EXPONENTIALS] == 4 * 4096 * 128  # layers × rows of experts × expert width
    assert EXPONENTIALS not in rows["qkv forward"]
