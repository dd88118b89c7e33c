"""Published collectives: constants per link kind fitted on every other size above 1 MiB, scored on the others, per source."""

from pathlib import Path

import numpy as np
import pytest

from configuration.errors import ConfigurationError
from fabrics import published

FILE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "published_runs" / "collective_microbenchmarks.csv"
at_hand = pytest.mark.skipif(not FILE.is_file(), reason="the published measurements are not at hand")


@at_hand
@pytest.mark.slow
@pytest.mark.parametrize("name", published.SOURCES)
def test_sizes_left_out_are_within_15_percent(name: str) -> None:
    measured, _ = published.read(FILE)
    profile = published.fit(measured[name], name)
    assert np.median(np.abs(published.score(measured[name], profile))) <= 0.15


@at_hand
def test_what_is_left_out_is_told() -> None:
    measured, left = published.read(FILE)
    assert set(measured) == set(published.SOURCES)
    assert any("DeepEP" in text and "no message size" in text for text in left)


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="published runs"):
        published.read(tmp_path / "absent.csv")
