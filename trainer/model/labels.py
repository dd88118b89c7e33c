"""Labels that count."""

from torch import Tensor

from trainer.kernels.chunked_cross_entropy import IGNORED


def labelled(labels_T: Tensor) -> int | Tensor:
    """How many labels count; read where that costs nothing."""
    count = (labels_T != IGNORED).sum()
    return count if labels_T.is_cuda else int(count)
