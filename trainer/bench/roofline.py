"""What the device can do at most, measured beside the kernels, and kernels drawn under it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.bench.kernels import DTYPES, Row
from trainer.bench.timing import timed

GEMM_SIZES = {"cpu": 1024, "cuda": 8192}
TENSOR_BYTES = {"cpu": 2**26, "cuda": 2**30}


@dataclass(frozen=True)
class Roofline:
    """``flops_per_s`` of a square matrix product, ``bytes_per_s`` of a copy or a sum of two tensors, bytes read and written counted."""

    flops_per_s: float
    bytes_per_s: float

    def least_s(self, flops: float, moved_bytes: float) -> float:
        """No kernel of so many FLOPs and bytes can be quicker."""
        return max(flops / self.flops_per_s, moved_bytes / self.bytes_per_s)


def measure_roofline(device: str, dtype: str, repeats: int) -> Roofline:
    """Both ceilings on this device.

    A copy is the quicker on a CPU, whose caches it passes by; a sum on a GPU, where a copy of 1 GB within a CUDA graph is the driver's and runs at two
    thirds of its rate.
    """
    size = GEMM_SIZES[device]
    left, right = (torch.randn(size, size, device=device).to(DTYPES[dtype]) for _ in range(2))
    one, other, target = (torch.zeros(TENSOR_BYTES[device] // 4, device=device) for _ in range(3))
    product_s = min(timed(lambda: torch.mm(left, right), device, repeats).repeats_s)
    copy_s = min(timed(lambda: target.copy_(one), device, repeats).repeats_s)
    sum_s = min(timed(lambda: torch.add(one, other, out=target), device, repeats).repeats_s)
    return Roofline(2.0 * size**3 / product_s, target.nbytes * max(2.0 / copy_s, 3.0 / sum_s))


def draw_roofline(rows: list[Row], roofline: Roofline, file: Path) -> None:
    """As PNG: kernels with matrix products by FLOP/s against FLOPs per byte, all others by bytes/s against bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = [
        (f"{row.operation} {row.kernel}{direction}", flops, moved, timing.median_s)
        for row in rows
        for direction, timing, flops, moved in (
            ("", row.forward, row.forward_flops, row.forward_bytes),
            (", backward", row.backward, row.backward_flops, row.backward_bytes),
        )
        if timing is not None
    ]
    products, moves = [point for point in points if point[1]], [point for point in points if not point[1]]
    figure, panels = pyplot.subplots(1, bool(products) + bool(moves) or 1, figsize=(8 * (bool(products) + bool(moves) or 1), 5), squeeze=False)
    axes = list(panels[0])
    if products:
        knee = roofline.flops_per_s / roofline.bytes_per_s
        intensities = [flops / moved for _, flops, moved, _ in products]
        corners = sorted([min(*intensities, knee, 1.0) / 2, knee, max(*intensities, knee) * 2])
        ceiling = [min(roofline.flops_per_s, intensity * roofline.bytes_per_s) for intensity in corners]
        _panel(axes.pop(0), corners, ceiling, [(name, flops / moved, flops / time_s) for name, flops, moved, time_s in products], ("FLOPs per byte", "FLOP/s"))
    if moves:
        sizes = [moved for _, _, moved, _ in moves]
        span = [min(sizes) / 2, max(sizes) * 2]
        _panel(axes[0], span, [roofline.bytes_per_s] * 2, [(name, moved, moved / time_s) for name, _, moved, time_s in moves], ("bytes", "bytes/s"))
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150, format="png")
    pyplot.close(figure)


def _panel(axes: Any, corners: list[float], ceiling: list[float], points: list[tuple[str, float, float]], labels: tuple[str, str]) -> None:
    axes.plot(corners, ceiling, color="black", label="measured ceiling")
    for name in dict.fromkeys(name for name, _, _ in points):
        chosen = [(x, y) for other, x, y in points if other == name]
        axes.scatter(*zip(*chosen, strict=True), label=name, s=18)
    axes.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1])
    axes.legend(fontsize=7, loc="lower right")
