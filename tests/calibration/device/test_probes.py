"""Tables of kernels timed alone."""

import json
from pathlib import Path

import pytest

from calibration.device.fit import fit
from calibration.device.held_out import held_out_errors
from calibration.device.observations import EXPONENTIALS, Observation, Quantity
from calibration.device.probes import WORK, load_probes
from calibration.device.profile import build_profile
from calibration.device.sources import gather
from configuration.errors import ConfigurationError
from simulator.components import Kind
from simulator.specs.presets import DEVICES

H200_IN_GRAPHS = Path("calibration/measurements/h200-2026-11-30/device.jsonl")
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "gpu"


def test_work_of_a_matrix_product() -> None:
    work = WORK["gemm"]({"m": 2, "n": 3, "k": 5, "dtype": "bf16"})
    assert work[Quantity("flops", Kind.GEMM, "bf16")] == 2 * 2 * 3 * 5
    assert work[Quantity("bytes", Kind.GEMM)] == 2 * (2 * 5 + 5 * 3 + 2 * 3)


def test_work_of_attention_counts_the_causal_half() -> None:
    row = {"batch": 1, "heads": 2, "sequence": 4, "head_dim": 8}
    forward, both = WORK["attention_forward"](row), WORK["attention_forward_backward"](row)
    # Two products of 2·B·H·S·S·C FLOPs, halved; five backward.
    assert forward[Quantity("flops", Kind.ATTENTION, "bf16")] == 2 * 1 * 2 * 4 * 4 * 8
    assert both[Quantity("backward_flops", Kind.ATTENTION, "bf16")] == 5 * 1 * 2 * 4 * 4 * 8
    # Four tensors of 64 elements in bf16, eight logarithms in fp32.
    assert forward[Quantity("bytes", Kind.ATTENTION)] == 2 * 4 * 64 + 4 * 8
    # Backward reads five tensors and writes three.
    assert both[Quantity("bytes", Kind.ATTENTION)] == forward[Quantity("bytes", Kind.ATTENTION)]
    assert both[Quantity("backward_bytes", Kind.ATTENTION)] == 2 * 8 * 64 + 4 * 8
    # Two heads of 4 x 4 scores, halved, whatever the width.
    assert forward[Quantity("scores", Kind.ATTENTION)] == both[Quantity("scores", Kind.ATTENTION)] == both[Quantity("backward_scores", Kind.ATTENTION)] == 16


def attention_table(path: Path, widths: tuple[int, ...]) -> Path:
    """Kernels of a device with these rates: 800 and 600 TFLOP/s, 3e12 and 1e12 scores/s, 3 and 2 TB/s; 5 us a launch."""
    rows: list[dict[str, object]] = [{"kind": "device", "name": "some GPU", "cuda": "13.0"}]
    rows += [{"kind": "add", "bytes": size, "us": 2.0 + size / 4e12 * 1e6} for size in (60_000, 60_000_000, 600_000_000)]
    rows += [{"kind": "gemm", "m": m, "n": m, "k": m, "us": 2.0 + 2e-6 * m**3 / 500 + 6e-6 * m**2} for m in (512, 1024, 4096)]
    for sequence in (128, 512, 2048, 8192):
        for width in widths:
            shape = {"batch": 64, "heads": 16, "sequence": sequence, "head_dim": width}
            scores, elements = 64 * 16 * sequence**2 / 2, 64 * 16 * sequence * width
            log_sums = 4 * elements / width
            forward_s = 5e-6 + 4 * scores * width / 8e14 + scores / 3e12 + (8 * elements + log_sums) / 3e12
            backward_s = 5e-6 + 10 * scores * width / 6e14 + scores / 1e12 + (16 * elements + log_sums) / 2e12
            rows += [{"kind": "attention_forward", "us": forward_s * 1e6, **shape}]
            rows += [{"kind": "attention_forward_backward", "us": (forward_s + backward_s) * 1e6, **shape}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_heads_of_two_widths_tell_the_scores_of_attention_from_its_flops(tmp_path: Path) -> None:
    sources = gather([], [load_probes(attention_table(tmp_path / "kernels.jsonl", (64, 128)))], "mine", "today")
    rate = build_profile(fit(sources.observations, sources.own_launches), sources.origin, DEVICES.load("h100-sxm-80gb")).device.kernels[Kind.ATTENTION]
    found = (rate.scores_per_s, rate.backward_scores_per_s, rate.backward_bytes_per_s, rate.flops_per_s["bf16"], rate.backward_flops_per_s["bf16"])
    for constant, value in zip(found, (3e12, 1e12, 2e12, 8e14, 6e14), strict=True):
        assert constant is not None
        assert constant.origin == "fitted"
        assert constant.standard_error is not None
        assert constant.value == pytest.approx(value, rel=0.01)


def test_heads_of_one_width_leave_scores_within_the_flop_rate(tmp_path: Path) -> None:
    sources = gather([], [load_probes(attention_table(tmp_path / "kernels.jsonl", (64,)))], "mine", "today")
    profile = build_profile(fit(sources.observations, sources.own_launches), sources.origin, DEVICES.load("h100-sxm-80gb"))
    rate = profile.device.kernels[Kind.ATTENTION]
    assert rate.scores_per_s is rate.backward_scores_per_s is None
    assert "scores_per_s of attention: left out; it cannot be told apart" in profile.notes
    # 4 FLOPs of a score in each of 64 channels take as long as at 8e14 FLOP/s, and 1 s for 3e12 scores.
    assert rate.flops_per_s["bf16"].value == pytest.approx(1 / (1 / 8e14 + 1 / (4 * 64 * 3e12)), rel=0.01)
    assert rate.flops_per_s["bf16"].standard_error is not None
    assert rate.backward_bytes_per_s is not None


def test_silu_raises_e_to_every_element() -> None:
    assert WORK["silu"]({"elements": 10, "bytes": 40})[EXPONENTIALS] == 10


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    path.write_text(json.dumps({"kind": "gemm", "m": 1, "n": 1, "us": 1.0}) + "\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 1: field 'k'"):
        load_probes(path)


def test_kinds_that_are_not_fitted_are_said(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    rows = [{"kind": "add", "elements": 1, "bytes": 6, "us": 1.0}, {"kind": "clip_grad_norm", "us": 3.0}, {"kind": "novel", "us": 1.0}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert set(load_probes(path).left_out) == {"clip_grad_norm", "novel"}


def test_a_kernel_in_a_graph_gives_the_launch_overhead_of_graphs(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    adds = [{"kind": "add", "elements": size // 6, "bytes": size, "us": 2.0 + size * 1e-6} for size in (6_000, 600_000, 60_000_000)]
    products = [
        {"kind": "gemm", "m": m, "n": m, "k": m, "dtype": "bf16", "layout": "NN", "us": 2.0 + 2e-6 * m**3 / 500 + 6e-6 * m**2} for m in (512, 1024, 4096)
    ]
    launches = [{"kind": "launch", "op": "kernel_and_wait", "us": 9.0}, {"kind": "launch", "op": "kernel_in_graph", "kernels": 200, "us": 1.25}]
    path.write_text("\n".join(map(json.dumps, [{"kind": "device", "name": "some GPU"}, *adds, *products, *launches])), encoding="utf-8")
    sources = gather([], [load_probes(path)], "mine", "today")
    device = build_profile(fit(sources.observations, sources.own_launches), sources.origin, DEVICES.load("h100-sxm-80gb")).device
    assert device.graph_launch_overhead_s is not None
    assert device.graph_launch_overhead_s.value == 1.25e-6
    assert set(sources.left_out) == {"launch"}


def test_kernels_that_a_cache_serves_are_left_out_on_a_gpu_alone(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    rows = [{"kind": "add", "elements": 1, "bytes": size, "us": 1.0} for size in (100_000, 25_000_000, 100_000_000)]
    rows += [{"kind": "adamw_fused", "parameters": 1_000_000, "tensors": 1, "us": 80.0}]
    for versions, left in (({"cuda": "13.0"}, 3), ({}, 4)):
        path.write_text("\n".join(map(json.dumps, [{"kind": "device", "name": "mine", **versions}, *rows])), encoding="utf-8")
        found = load_probes(path)
        assert len(found.observations) == left
        assert set(found.left_out) == ({"add of 2 to 50 MB"} if versions else set())


def test_widened_broadcast_and_parted_kernels_share_a_rate_and_leave_that_of_the_others_alone(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    rows: list[dict[str, object]] = [{"kind": "device", "name": "some GPU", "cuda": "13.0"}]
    at_once = ("add", "cast_fp32_bf16")
    one_by_one = ("cast_bf16_fp32", "multiply_by_row", "multiply_by_column", "copy_of_half")
    for size in (60_000, 600_000, 60_000_000, 600_000_000):
        rows += [{"kind": name, "bytes": size, "us": 2.0 + size / 4e12 * 1e6} for name in at_once]
        rows += [{"kind": name, "bytes": size, "us": 2.0 + size / 2e12 * 1e6} for name in one_by_one]
    rows += [{"kind": "gemm", "m": m, "n": m, "k": m, "dtype": "bf16", "us": 2.0 + 2e-6 * m**3 / 500 + 6e-6 * m**2} for m in (512, 1024, 4096)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sources = gather([], [load_probes(path)], "mine", "today")
    rate = build_profile(fit(sources.observations, sources.own_launches), sources.origin, DEVICES.load("h100-sxm-80gb")).device.kernels[Kind.POINTWISE]
    assert rate.irregular_bytes_per_s is not None
    assert rate.irregular_bytes_per_s.origin == "fitted"
    assert rate.irregular_bytes_per_s.standard_error is not None
    assert rate.irregular_bytes_per_s.value == pytest.approx(2e12, rel=1e-3)
    assert rate.bytes_per_s.value == pytest.approx(4e12, rel=1e-3)


def test_silu_of_half_of_every_row_is_irregular_and_raises_e_to_every_element() -> None:
    work = WORK["silu_of_half"]({"elements": 10, "bytes": 40})
    assert work == {Quantity("launches", Kind.POINTWISE): 1.0, Quantity("irregular_bytes", Kind.POINTWISE): 40.0, EXPONENTIALS: 10.0}


def test_kernels_that_were_timed_in_graphs_have_the_launches_of_graphs_already(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    rows = [{"kind": "add", "bytes": 6_000, "us": 2.0, "issued": "graph"}, {"kind": "launch", "op": "kernel_in_graph", "us": 1.25, "issued": "graph"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert load_probes(path).graph_s is None


def test_a_cpu_casts_as_fast_as_it_copies(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    path.write_text(json.dumps({"kind": "cast_bf16_fp32", "bytes": 600_000, "us": 2.0}), encoding="utf-8")
    (observation,) = load_probes(path).observations
    assert observation.work == {Quantity("launches", Kind.POINTWISE): 1.0, Quantity("bytes", Kind.POINTWISE): 600_000.0}


def test_a_table_of_cached_kernels_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    rows = [{"kind": "device", "name": "mine", "cuda": "13.0"}, {"kind": "add", "elements": 1, "bytes": 25_000_000, "us": 1.0}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no timed kernels"):
        load_probes(path)


def is_wide(attention: Observation) -> bool:
    """Whether its heads are wider than 64."""
    return attention.work[Quantity("flops", Kind.ATTENTION, "bf16")] > 4 * 64 * attention.work[Quantity("scores", Kind.ATTENTION)]


def test_what_a_table_does_not_tell_apart_leaves_the_rest_told() -> None:
    """Attention of one width and one number of tokens."""
    observations = [each for each in load_probes(H200_IN_GRAPHS).observations if not (each.name.startswith("attention") and is_wide(each))]
    sources = gather([], [load_probes(H200_IN_GRAPHS)], "mine", "today")
    rates = build_profile(fit(observations, sources.own_launches), sources.origin, DEVICES.load("h200-sxm-141gb")).device.kernels
    assert rates[Kind.ATTENTION].scores_per_s is rates[Kind.ATTENTION].backward_scores_per_s is None
    assert rates[Kind.ATTENTION].flops_per_s["bf16"].origin == "fitted"
    irregular = rates[Kind.POINTWISE].irregular_bytes_per_s
    assert irregular is not None
    assert irregular.origin == rates[Kind.POINTWISE].bytes_per_s.origin == "fitted"
    assert irregular.value < 0.6 * rates[Kind.POINTWISE].bytes_per_s.value


@pytest.mark.parametrize(
    ("preset", "table", "others"), [("h100-sxm-80gb", "h100_kernels.jsonl", ()), ("h200-sxm-141gb", "h200_kernels.jsonl", (H200_IN_GRAPHS,))]
)
def test_the_preset_is_the_fit_to_our_timings(preset: str, table: str, others: tuple[Path, ...]) -> None:
    if not (SHARED / table).is_file():
        pytest.skip(f"the kernel timings {table} are not beside this checkout")
    device = DEVICES.load(preset)
    sources = gather([], [load_probes(path) for path in (SHARED / table, *others)], preset, "today")
    again = build_profile(fit(sources.observations, sources.own_launches), sources.origin, device).device
    assert again.memory_bytes == device.memory_bytes
    for kind, rate in device.kernels.items():
        assert again.kernels[kind].bytes_per_s.value == pytest.approx(rate.bytes_per_s.value, rel=1e-3)
        assert (again.kernels[kind].irregular_bytes_per_s is None) == (rate.irregular_bytes_per_s is None) == (kind is not Kind.POINTWISE)
        for item, constant in rate.flops_per_s.items():
            assert again.kernels[kind].flops_per_s[item].value == pytest.approx(constant.value, rel=1e-3)
    for name in ("scores_per_s", "backward_scores_per_s", "backward_bytes_per_s"):
        assert getattr(again.kernels[Kind.ATTENTION], name).value == pytest.approx(getattr(device.kernels[Kind.ATTENTION], name).value, rel=1e-3)
    irregular = [each.kernels[Kind.POINTWISE].irregular_bytes_per_s for each in (again, device)]
    assert irregular[0] is not None
    assert irregular[1] is not None
    assert irregular[0].value == pytest.approx(irregular[1].value, rel=1e-3)
    errors = {error.name: error.median for error in held_out_errors(sources.observations, sources.own_launches)}
    assert errors["gemm"] < 0.12
    assert errors["grouped_gemm"] < 0.10
    assert errors["attention_forward"] < 0.04
    assert errors["attention_forward_backward"] < 0.03
