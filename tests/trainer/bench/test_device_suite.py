"""What the device suite says of its kernels."""

import pytest
import torch

from calibration.device.probes import WORK
from trainer.bench.device_suite import SIZES, uneven_moves


def test_bytes_of_broadcasts_halves_and_casts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES["cpu"], "uneven_rows", (3,))
    found = {kind: (fields, work) for kind, fields, work in uneven_moves("cpu", "bf16")}
    assert set(found) <= set(WORK)
    read_and_written = {
        # Two bytes each: all of x and of the result, of 3 x 2048 elements; the row has 2048, the column 3.
        "multiply_by_row": 2 * (6144 + 6144 + 2048),
        "multiply_by_column": 2 * (6144 + 6144 + 3),
        "copy_of_half": 2 * (6144 + 6144),
        "silu_of_half": 2 * (6144 + 6144),
        "cast_fp32_bf16": 4 * 6144 + 2 * 6144,
    }
    assert {kind: fields["bytes"] for kind, (fields, _) in found.items()} == read_and_written
    for _, work in found.values():
        result = work()
        assert isinstance(result, torch.Tensor)
        assert result.shape == (3, 2048)
        assert result.dtype is torch.bfloat16
        assert result.is_contiguous()


def test_on_a_gpu_they_move_more_than_a_cache_holds() -> None:
    assert all(2 * 2 * rows * 2048 >= 200e6 for rows in SIZES["cuda"]["uneven_rows"])
