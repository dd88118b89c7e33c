"""Memory of a run by category, from the sizes of its tensors, and the process' peak as the system tells it."""

import resource
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class RunMemory:
    """Bytes after an optimizer step; what else a step holds is measured by ``python -m trainer measure``."""

    parameters_bytes: int
    gradients_bytes: int
    """At the end of backward: one gradient for each parameter, in its type."""
    optimizer_bytes: int
    """Adam's two moments and its step counters."""
    process_peak_bytes: int
    """Highest resident size of the process so far."""
    device_peak_bytes: int | None
    """Highest allocation on the CUDA device so far; None on CPU."""

    def __str__(self) -> str:
        parts = {"parameters": self.parameters_bytes, "gradients": self.gradients_bytes, "Adam states": self.optimizer_bytes}
        parts["process peak"] = self.process_peak_bytes
        if self.device_peak_bytes is not None:
            parts["device peak"] = self.device_peak_bytes
        return "memory: " + ", ".join(f"{name} {size_bytes / 1e6:,.1f} MB" for name, size_bytes in parts.items())


def run_memory(model: "nn.Module", optimizer: "torch.optim.Optimizer") -> RunMemory:
    """Memory of a model and its optimizer."""
    import torch

    parameters = [_own(parameter) for parameter in model.parameters()]
    sizes_bytes = sum(parameter.nbytes for parameter in parameters)
    trained_bytes = sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
    states_bytes = sum(_own(value).nbytes for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor))
    on_device = any(parameter.is_cuda for parameter in parameters)
    return RunMemory(sizes_bytes, trained_bytes, states_bytes, _process_peak_bytes(), torch.cuda.max_memory_allocated() if on_device else None)


def _own(tensor: "torch.Tensor") -> "torch.Tensor":
    """What this rank holds of a tensor."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def peak_bytes(device: str) -> int:
    """Highest allocation on a CUDA device so far, else highest resident size of the process."""
    import torch

    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else _process_peak_bytes()


def _process_peak_bytes() -> int:
    # getrusage counts kibibytes on Linux and bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
