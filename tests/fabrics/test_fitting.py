"""Link profiles fitted to measurements are scored on the sizes that were left out."""

from pathlib import Path

import numpy as np
import pytest

from fabrics import measurements
from fabrics.cost import cost
from fabrics.fitting import Measured, errors, fit_lines, fit_source, shapes
from fabrics.loading import LINK_PROFILES, load_fabric

TWO_H200 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gpu" / "h200x2_collectives.jsonl"
measured_here = pytest.mark.skipif(not TWO_H200.is_file(), reason="the measurements on two H200 are not at hand")


def test_lines_are_found_again() -> None:
    sizes = np.logspace(3, 9, 25)
    times = np.minimum(20e-6 + sizes / 1e9, 200e-6 + sizes / 1e11)
    lines = fit_lines(sizes, times)
    assert np.min([a + b * sizes for a, b in lines], axis=0) == pytest.approx(times, rel=5e-3)


def test_shape_counts_what_pricing_charges() -> None:
    fabric = load_fabric("dgx-h100-superpod-1", {"link_profile": "ideal"})
    measured = Measured(fabric, "all-reduce", [tuple(range(16))], np.array([1e6]), np.array([1.0]), ("ring",))
    (shape,) = shapes(measured)
    # 30 steps around 16 links, 2 of them between nodes.
    assert dict(zip(fabric.kinds, shape.steps.tolist(), strict=True)) == pytest.approx({"network": 30 * 2 / 16, "nvlink": 30 * 14 / 16})
    hot = dict(zip(fabric.kinds, shape.hot_s_per_byte.tolist(), strict=True))
    assert hot["network"] == pytest.approx(2 * 15 / 16 / 8 / 50e9)
    assert hot["nvlink"] == pytest.approx(2 * 15 / 16 / 450e9 * 7 / 8)


def test_constants_of_a_source_are_found_again() -> None:
    truth = LINK_PROFILES.load("nccl-hopper")
    parts = []
    for ranks in (16, 32, 64):
        fabric = load_fabric("dgx-h100-superpod-1", {"hop_latency_s": 0, "scale_up_latency_s": 0, "link_profile": "nccl-hopper"})
        sizes = np.logspace(6, 10, 12)
        times = cost(fabric, "all-reduce", [tuple(range(ranks))], sizes, algorithm="ring").time_s
        parts.append(Measured(fabric, "all-reduce", [tuple(range(ranks))], sizes, times, ("ring",)))
    profile = fit_source([part.alternate(0) for part in parts], "made up")
    assert np.median(np.abs(np.concatenate([errors(part.alternate(1), profile) for part in parts]))) < 0.03
    assert truth.protocols["Simple"].efficiency["network"].value == pytest.approx(
        max(protocol.efficiency["network"].value for protocol in profile.protocols.values()), rel=0.1
    )


@measured_here
@pytest.mark.parametrize(("transport", "allowed"), [("nvlink", 0.10), ("shm", 0.10), ("socket", 0.15)])
def test_two_h200_on_sizes_left_out(transport: str, allowed: float) -> None:
    measured = measurements.read(TWO_H200, transport)
    profile = LINK_PROFILES.load(f"h200-{transport}")
    for operation, found in measurements.score(measured, profile).items():
        assert np.median(np.abs(found)) <= allowed, operation


@measured_here
@pytest.mark.parametrize("transport", ["nvlink", "shm", "socket"])
def test_shipped_profiles_are_the_fit_of_the_measurements(transport: str) -> None:
    shipped = LINK_PROFILES.load(f"h200-{transport}")
    measured = measurements.read(TWO_H200, transport)
    again = measurements.fit(measured, shipped.name, next(iter(shipped.protocols.values())).base_s.cite)
    for part in measured:
        assert errors(part, again) == pytest.approx(errors(part, shipped), abs=1e-3)
