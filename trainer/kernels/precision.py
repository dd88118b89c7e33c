"""Where sums and exponentials are taken in more than bf16."""

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """``x`` in fp32; what is in fp64, the precision of references, stays there."""
    return x if x.dtype is torch.float64 else x.float()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type that ``at_least_fp32`` gives."""
    return dtype if dtype is torch.float64 else torch.float32
