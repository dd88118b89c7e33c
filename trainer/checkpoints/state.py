"""The state of a training as one flat dictionary of tensors, whole or sharded (DTensor): what a checkpoint holds.

Names: ``model.NAME``, ``optimizer.PARAMETER.STATE``, ``random.RANK.DEVICE``. Settings such as the learning rate follow from the experiment.
"""

from typing import TYPE_CHECKING

from trainer.checkpoints.random_state import random_state
from trainer.parallel.layout import as_whole
from trainer.parallel.world import World

if TYPE_CHECKING:
    import torch
    from torch import nn

MODEL, OPTIMIZER, RANDOM = "model.", "optimizer.", "random."
PACKED = ".gate_up"


def model_tensors(model: "nn.Module", world: World) -> "dict[str, torch.Tensor]":
    """Parameters and persistent buffers that this rank has, as parts of the whole ones; they share the storage of the model."""
    return {f"{MODEL}{name}": as_whole(name, part, world) for own, tensor in model.state_dict().items() for name, part in parts(own, tensor).items()}


def moment_tensors(parameter: str, key: str, value: "torch.Tensor", world: World, *, divided: bool) -> "dict[str, torch.Tensor]":
    """A state of the optimizer. ``divided``: it is shaped like its parameter, as moments are and counters are not."""
    named = {f"{OPTIMIZER}{name}.{key}": (name, part) for name, part in parts(parameter, value).items()}
    return {full: as_whole(name, part, world) if divided else part for full, (name, part) in named.items()}


def training_tensors(model: "nn.Module", optimizer: "torch.optim.Optimizer", world: World) -> "dict[str, torch.Tensor]":
    """All that the next step depends on, besides the experiment and the number of the step."""
    tensors = model_tensors(model, world)
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors |= moment_tensors(name, key, value.detach(), world, divided=value.shape == parameter.shape)
    return tensors | {f"{RANDOM}{world.rank}.{device}": state for device, state in random_state().items()}


def parts(name: str, tensor: "torch.Tensor") -> "dict[str, torch.Tensor]":
    """A tensor under the names that it has in a checkpoint, whatever the kernels: packed experts are a gate and an up projection."""
    if not name.endswith(PACKED):
        return {name: tensor}
    names = (name.replace(PACKED, ".gate"), name.replace(PACKED, ".up"))
    return dict(zip(names, tensor.chunk(2, -1) if tensor.dim() else (tensor, tensor.clone()), strict=True))
