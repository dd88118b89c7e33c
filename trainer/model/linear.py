"""Layers that keep master weights in their own dtype and compute in the dtype of their input."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.kernels.norm import NORMS


class Linear(nn.Module):
    """y = x W^T without bias; ``weight`` is (out, in). Where dtypes differ the weight is cast for the use."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in))

    def forward(self, x_NI: Tensor) -> Tensor:
        return F.linear(x_NI, self.weight.to(x_NI.dtype))


class RMSNorm(nn.Module):
    """RMSNorm over the last dimension by the named kernel."""

    def __init__(self, width: int, epsilon: float, kernel: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon
        self.kernel = NORMS[kernel]

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.kernel(x_ND, self.weight, self.epsilon)
