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


def model_tensors(model: "nn.Module", world: World) -> "dict[str, torch.Tensor]":
    """Parameters and persistent buffers that this rank has, as parts of the whole ones; they share the storage of the model."""
    return {f"{MODEL}{name}": as_whole(name, tensor, world) for name, tensor in model.state_dict().items()}


def optimizer_tensors(model: "nn.Module", optimizer: "torch.optim.Optimizer", world: World) -> "dict[str, torch.Tensor]":
    """The optimizer's state of every parameter that has one; moments are divided like their parameter, counters are whole everywhere."""
    return {
        f"{OPTIMIZER}{name}.{key}": as_whole(name, value.detach(), world) if value.shape == parameter.shape else value.detach()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def training_tensors(model: "nn.Module", optimizer: "torch.optim.Optimizer", world: World) -> "dict[str, torch.Tensor]":
    """All that the next step depends on, besides the experiment and the number of the step."""
    random = {f"{RANDOM}{world.rank}.{device}": state for device, state in random_state().items()}
    return model_tensors(model, world) | optimizer_tensors(model, optimizer, world) | random
