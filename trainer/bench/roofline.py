"""What the device can do at most, measured beside the kernels, and kernels drawn under it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.bench.kernels import DTYPES, Row
from trainer.bench.timing import timed

GEMM_SIZES = {"cpu": 1024, "cuda": 8192}
COPY_BYTES = {"cpu": 2**26, "cuda": 2**30}


@dataclass(frozen=True)
class Roofline:
    """``flops_per_s`` of a square matrix product, ``bytes_per_s`` of a copy, bytes read and written counted."""

    flops_per_s: float
    bytes_per_s: float

    def least_s(self, flops: float, moved_bytes: float) -> float:
        """No kernel of so many FLOPs and bytes can be quicker."""
        return max(flops / self.flops_per_s, moved_bytes / self.bytes_per_s)


def measure_roofline(device: str, dtype: str, repeats: int) -> Roofline:
    """Both ceilings on this device."""
    size = GEMM_SIZES[device]
    left, right = (torch.randn(size, size, device=device).to(DTYPES[dtype]) for _ in range(2))
    source = torch.zeros(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product_s = min(timed(lambda: torch.mm(left, right), device, repeats).repeats_s)
    copy_s = min(timed(lambda: target.copy_(source), device, repeats).repeats_s)
    return Roofline(2.0 * size**3 / product_s, 2.0 * source.nbytes / copy_s)


def draw_roofline(rows: list[Row], roofline: Roofline, file: Path) -> None:
    """FLOP/s against FLOPs per byte, or bytes/s for kernels without matrix products, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    points = [
        (f"{row.operation} {row.kernel}", flops / moved, flops / timing.median_s)
        for row in rows
        for timing, flops, moved in ((row.forward, row.forward_flops, row.forward_bytes), (row.backward, row.backward_flops, row.backward_bytes))
        if timing is not None and flops
    ]
    intensities = [point[1] for point in points] or [1.0]
    span = [min(*intensities, 1.0) / 2, max(*intensities, roofline.flops_per_s / roofline.bytes_per_s) * 2]
    knee = roofline.flops_per_s / roofline.bytes_per_s
    corners = sorted({span[0], knee, span[1]})
    axes.plot(corners, [min(roofline.flops_per_s, intensity * roofline.bytes_per_s) for intensity in corners], color="black", label="measured roofline")
    for name in dict.fromkeys(point[0] for point in points):
        chosen = [point for point in points if point[0] == name]
        axes.scatter([point[1] for point in chosen], [point[2] for point in chosen], label=name, s=18)
    axes.set(xscale="log", yscale="log", xlabel="FLOPs per byte", ylabel="FLOP/s", title="Kernels under the device's roofline")
    axes.legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
