"""Directions of a link that disturb each other, by hand and against exchanges that nothing was fitted to."""

import json
from pathlib import Path

import numpy as np
import pytest

from configuration.errors import ConfigurationError
from fabrics.cost import cost
from fabrics.graph import Fabric
from fabrics.loading import load_fabric
from fabrics.measurements import LINK_BYTES_PER_S

TWO_H200 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gpu" / "h200x2_collectives.jsonl"
measured_here = pytest.mark.skipif(not TWO_H200.is_file(), reason="the measurements on two H200 are not at hand")
SEVEN_TO_ONE = [[7 / 8, 1 / 8], [7 / 8, 1 / 8]]


def pair(opposing: float) -> Fabric:
    overrides = {"accelerators": 2, "link_bytes_per_s": 1e9, "hop_latency_s": 0, "link_profile": "ideal"}
    share = {"default": {"value": opposing, "source": "assumed"}}
    return load_fabric("single-node", {**overrides, "link_profile.protocols.wire.opposing": share})


@pytest.mark.parametrize(
    ("opposing", "even", "uneven"),
    [(0.0, 1 / 2, 7 / 8), (0.5, 1 / 2 + 1 / 4, 7 / 8 + 1 / 16), (1.0, 1.0, 1.0)],
    ids=["full duplex", "half disturbed", "one medium"],
)
def test_what_comes_the_other_way_costs_its_share(opposing: float, even: float, uneven: float) -> None:
    fabric = pair(opposing)
    assert float(cost(fabric, "all-to-all", [(0, 1)], 1e9).transfer_s[0]) == pytest.approx(even)
    costs = cost(fabric, "all-to-all", [(0, 1)], 1e9, matrix=SEVEN_TO_ONE)
    assert float(costs.transfer_s[0]) == pytest.approx(uneven)
    assert costs.busy_share(0).max() == pytest.approx(1)
    assert float(cost(fabric, "point-to-point", [(0, 1)], 1e9).transfer_s[0]) == pytest.approx(1)


def test_more_than_one_medium_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"opposing\.default: must be at most 1"):
        pair(1.5)


@measured_here
@pytest.mark.parametrize(("transport", "allowed"), [("nvlink", 0.10), ("shm", 0.10), ("socket", 0.15)])
def test_seven_to_one_between_two_h200_to_which_nothing_was_fitted(transport: str, allowed: float) -> None:
    overrides = {"accelerators": 2, "link_kind": transport, "link_bytes_per_s": LINK_BYTES_PER_S[transport], "hop_latency_s": 0}
    fabric = load_fabric("single-node", {**overrides, "link_profile": f"h200-{transport}"})
    rows = [json.loads(line) for line in TWO_H200.read_text().splitlines()]
    points = [(row["bytes"], np.median(row["us"]) * 1e-6) for row in rows if (row["transport"], row["op"]) == (transport, "all_to_all_uneven_7_1")]
    sizes, times = np.array(sorted(points)).T
    found = cost(fabric, "all-to-all", [(0, 1)], sizes, matrix=SEVEN_TO_ONE).time_s / times - 1
    assert len(found) >= 6
    assert np.median(np.abs(found)) <= allowed
