"""Which element-wise kernels an accelerator runs element by element.

PyTorch's CUDA kernels load and store several elements at a time only where all tensors are contiguous and as large as the result, and none has to be widened
as it is read (``aten/src/ATen/native/cuda/CUDALoops.cuh``: ``gpu_kernel_impl``, ``gpu_kernel_impl_nocast``). A narrower result does no harm: fp32 to bf16 is a
kernel without casts of its own (``Copy.cu``), and comparisons give bools.
"""

from simulator.components import Kind
from simulator.program.graph import ITEM_BYTES, Value
from simulator.program.operations import Operation

OTHERWISE = frozenset(("cat", "stack", "nll_loss_backward"))
"""Element-wise by kind, but of kernels that copy piece by piece, or fill and then write a few."""


def is_irregular(operation: Operation) -> bool:
    """Whether a kernel of PyTorch's goes element by element: it widens, broadcasts or goes through parts of rows. Opaque kernels and a compiler's do not."""
    if operation.kind is not Kind.POINTWISE or not operation.reads or operation.opaque or operation.name in OTHERWISE:
        return False
    moved = (*operation.reads, *operation.writes)
    widest = max((ITEM_BYTES[value.item] for value in moved), default=0)
    size = {value.elements.by_sequence for value in operation.writes}
    return any(ITEM_BYTES[value.item] < widest or size - {value.elements.by_sequence} for value in operation.reads) or any(map(_in_pieces, moved))


def _in_pieces(value: Value) -> bool:
    """Whether it is some columns of a larger storage; some rows lie together."""
    whole = value.storage
    return value.elements.by_sequence != whole.elements.by_sequence and value.shape[1:] != whole.shape[1:]
