"""Which part of each parameter a rank holds, by the parameter's name.

Shapes: E experts, D width, F hidden or expert width. Slices never cut the width of the model, so that shards always can.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainer.parallel.world import EXPERT, EXPERT_TENSOR, SHARD, TENSOR, Share, World

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Division:
    """How a parameter is divided. ``slices``: dimension of the mesh to dimension of the tensor; ``shard``: what shards cut where they do not cut the first."""

    share: Share = Share.WHOLE
    slices: dict[str, int] = field(default_factory=dict)
    shard: int = 0


_EXPERT_IN = Division(Share.EXPERT, {EXPERT: 0, EXPERT_TENSOR: 2}, shard=1)
_EXPERT_OUT = Division(Share.EXPERT, {EXPERT: 0, EXPERT_TENSOR: 1}, shard=2)
_OUT = Division(Share.SLICED, {TENSOR: 0}, shard=1)
_IN = Division(Share.SLICED, {TENSOR: 1}, shard=0)

DIVISIONS = {
    "feed_forward.experts.gate": _EXPERT_IN,
    "feed_forward.experts.up": _EXPERT_IN,
    "feed_forward.experts.gate_up": _EXPERT_IN,
    "feed_forward.experts.down": _EXPERT_OUT,
    "attention.query.weight": _OUT,
    "attention.key.weight": _OUT,
    "attention.value.weight": _OUT,
    "attention.output.weight": _IN,
    "feed_forward.gate.weight": _OUT,
    "feed_forward.up.weight": _OUT,
    "feed_forward.down.weight": _IN,
}
"""Name within a block to division; everything else is whole on every rank of its stage."""


def division(name: str) -> Division:
    """How the parameter ``name`` is divided."""
    return DIVISIONS.get(name.split(".", 2)[2] if name.startswith("blocks.") else name, Division())


def shard_axis(name: str, own: "Tensor", world: World) -> int:
    """The dimension of this rank's slice ``own`` of a parameter that shards cut: the first, which FSDP gathers and scatters without copies of each parameter.

    Where slices cut it already, or shards do not divide it, another one.
    """
    divided = division(name)
    sliced = any(axis == 0 and world.degree(divided.share, dimension) > 1 for dimension, axis in divided.slices.items())
    return divided.shard if sliced or own.shape[0] % world.degree(divided.share, SHARD) else 0


def own_parts(model: "nn.Module") -> "list[Tensor]":
    """What this rank holds of each parameter, as plain tensors that share its storage."""
    from torch.distributed.tensor import DTensor

    return [parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach() for parameter in model.parameters()]


def slice_parameters(model: "nn.Module", world: World) -> None:
    """Replace every whole parameter by this rank's slice of it, in place."""
    from torch import nn

    for name, parameter in list(model.named_parameters()):
        kept = own_slice(name, parameter.detach(), world)
        if kept.shape != parameter.shape:
            module, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(module), leaf, nn.Parameter(kept.clone()))


def own_slice(name: str, whole: "Tensor", world: World) -> "Tensor":
    """This rank's slice of a parameter (or of anything of its shape), as a view."""
    divided = division(name)
    for dimension, axis in divided.slices.items():
        degree = world.degree(divided.share, dimension)
        whole = whole.chunk(degree, axis)[world.index(divided.share, dimension)]
    return whole


def holders(name: str, world: World, *, sharded: bool, tied: bool) -> int:
    """Ranks that hold the same numbers of this parameter."""
    divided = division(name)
    parts = 1
    for dimension in (*divided.slices, *((SHARD,) if sharded else ())):
        parts *= world.degree(divided.share, dimension)
    # A tied embedding lies on both ends of a pipeline.
    ends = 2 if name == "embedding" and tied and world.plan.pp > 1 else 1
    return world.plan.stage_ranks // parts * ends


def as_whole(name: str, tensor: "Tensor", world: World) -> "Tensor":
    """``tensor``, which is this rank's part of the parameter ``name`` or of a moment of it, as a DTensor of the whole's shape.

    It shares the storage. Parameters that every rank holds whole come back as they are.
    """
    from torch.distributed.tensor import DTensor, Shard

    divided = division(name)
    local, cuts = tensor, dict(divided.slices)
    if isinstance(tensor, DTensor):
        (placement,) = (placement for placement in tensor.placements if isinstance(placement, Shard))
        local, cuts[SHARD] = tensor.to_local(), placement.dim
    mesh = world.submesh(divided.share, tuple(cuts))
    if mesh is None:
        return local
    shape = list(tensor.shape)
    for dimension, axis in divided.slices.items():
        shape[axis] *= world.degree(divided.share, dimension)
    placements = [Shard(cuts[dimension]) for dimension in mesh.mesh_dim_names or ()]
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=_size(shape), stride=_strides(shape))


def _size(shape: list[int]) -> "torch.Size":
    import torch

    return torch.Size(shape)


def _strides(shape: list[int]) -> tuple[int, ...]:
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))
