"""Where the time of a step on a GPU goes, kernel by kernel, whatever was fused: names to kinds."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch

KINDS = (
    ("optimizer", r"^_update|^_squares$|multi_tensor_apply|fused_adam|foreach"),
    ("cross-entropy", r"^_rows$|log_softmax|nll_loss|cross_entropy"),
    ("attention", r"sdpa|flash|fmha|cudnn::fusion"),
    ("grouped GEMM", r"grouped|GroupProblemShape|prepare_grouped"),
    ("GEMM", r"nvjet|gemm|cublas|cutlass|triton_tem|splitK"),
    ("order", r"^_count$|^_place$|[Ss]ort|[Tt]op[kK]|scan|cumsum"),
    ("SwiGLU", r"^_forward$|^_backward$"),
    ("rotary positions", r"^_rope$"),
    ("fused by torch.compile", r"^triton_"),
    ("copies and fills", r"[Mm]emcpy|[Mm]emset"),
)
"""First match of the kernel's name wins; names of one word behind an underscore are of ``trainer/kernels/triton``.

The rest is PyTorch's own elementwise, reduction and index kernels.
"""
OTHER = "eager kernels"


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a step, all its launches."""

    name: str
    kind: str
    launches: int
    time_s: float


def kind_of(name: str) -> str:
    """The kind of a kernel by its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), OTHER)


def kernel_times(step: Callable[[], object]) -> list[KernelTime]:
    """Kernels of one call of ``step`` on CUDA, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        step()
        torch.cuda.synchronize()
    launches: dict[str, int] = defaultdict(int)
    time_us: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        if event.device_type == torch._C._autograd.DeviceType.CUDA and not event.is_user_annotation:
            launches[event.name] += 1
            time_us[event.name] += event.time_range.elapsed_us()
    found = [KernelTime(name, kind_of(name), launches[name], time_us[name] / 1e6) for name in time_us]
    return sorted(found, key=lambda kernel: -kernel.time_s)


def by_kind(kernels: list[KernelTime]) -> dict[str, float]:
    """Seconds of each kind, the longest first."""
    found: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        found[kernel.kind] += kernel.time_s
    return dict(sorted(found.items(), key=lambda row: -row[1]))
