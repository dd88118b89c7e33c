"""One gradient norm over all meshes: each rank's squares, counted once over the ranks that hold the same numbers."""

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.kernels.precision import wide
from trainer.parallel.layout import holders
from trainer.parallel.world import World

if TYPE_CHECKING:
    from trainer.model import MoETransformer


def local_gradients(model: nn.Module) -> dict[str, Tensor]:
    """What this rank has of each gradient, by parameter; views of the storage in use."""
    return {
        name: parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def square_sum(model: "MoETransformer", world: World) -> Tensor:
    """This rank's share of the square of the norm: summed over all ranks it is the square of the norm of the whole gradient."""
    groups: dict[int, list[Tensor]] = defaultdict(list)
    sharded = world.plan.zero_stage > 0
    for name, gradient in local_gradients(model).items():
        groups[holders(name, world, sharded=sharded, tied=model.spec.tied_embeddings)].append(gradient)
    squares = [norm_of(gradients).square() / count for count, gradients in groups.items()]
    return torch.stack(squares).sum()


def norm_of(gradients: list[Tensor]) -> Tensor:
    """The norm of all of them together, in fp32 or more."""
    if not gradients:
        return torch.zeros(())
    if all(gradient.is_cuda and gradient.is_contiguous() and gradient.dtype is not torch.float64 for gradient in gradients):
        from trainer.kernels.triton.square_sum import square_sum as in_one_pass

        return in_one_pass(gradients).sqrt()
    norms = [torch.linalg.vector_norm(gradient, dtype=wide(gradient.dtype)) for gradient in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
