"""The run table as a file."""

from pathlib import Path

import pytest

from simulator.records.run_table import RunRow, append_row, read_rows


@pytest.mark.parametrize("text", ["plain", "two\nlines", "old\rMac", "DOS\r\nlines", 'quoted "words", and commas', " "])
def test_a_sampled_text_of_any_kind_comes_back(tmp_path: Path, text: str) -> None:
    rows = [RunRow(run=name, total_parameters=2e6, active_parameters=1e6, tokens=1e8, validation_loss_nats_per_token=1 / 3, sample_text=text) for name in "ab"]
    for row in rows:
        append_row(tmp_path / "t.csv", row)
    found = read_rows(tmp_path / "t.csv")
    assert [row.validation_loss_nats_per_token for row in found] == [1 / 3, 1 / 3]
    assert {row.sample_text for row in found} == ({text} if text.strip() else {None})
