"""The state of a training as one flat dictionary of tensors, whole or sharded (DTensor): what a checkpoint holds.

Names: ``model.NAME``, ``optimizer.PARAMETER.STATE``, ``random.RANK.DEVICE``. Settings such as the learning rate follow from the experiment.
"""

from typing import TYPE_CHECKING

from trainer.checkpoints.random_state import random_state

if TYPE_CHECKING:
    import torch
    from torch import nn

MODEL, OPTIMIZER, RANDOM = "model.", "optimizer.", "random."


def model_tensors(model: "nn.Module") -> "dict[str, torch.Tensor]":
    """Parameters and persistent buffers under their names; they share the storage of the model."""
    return {f"{MODEL}{name}": tensor for name, tensor in model.state_dict().items()}


def optimizer_tensors(model: "nn.Module", optimizer: "torch.optim.Optimizer") -> "dict[str, torch.Tensor]":
    """The optimizer's state of every parameter that has one."""
    return {
        f"{OPTIMIZER}{name}.{key}": value.detach() for name, parameter in model.named_parameters() for key, value in optimizer.state.get(parameter, {}).items()
    }


def training_tensors(model: "nn.Module", optimizer: "torch.optim.Optimizer") -> "dict[str, torch.Tensor]":
    """All that the next step depends on, besides the experiment and the number of the step."""
    random = {f"{RANDOM}{this_rank()}.{device}": state for device, state in random_state().items()}
    return model_tensors(model) | optimizer_tensors(model, optimizer) | random


def this_rank() -> int:
    """Rank of this process; 0 without a process group."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_initialized() else 0
