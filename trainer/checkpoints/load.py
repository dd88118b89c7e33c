"""Read a checkpoint back."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from trainer.checkpoints.folder import MODEL_FILE, OPTIMIZER_FILE, RANDOM_FILE, Checkpoint, damaged
from trainer.checkpoints.random_state import set_random_state

if TYPE_CHECKING:
    import torch
    from torch import nn


def load_model_weights(checkpoint: Checkpoint, model: "nn.Module") -> None:
    """Put the weights of ``checkpoint`` into ``model``. Raises ConfigurationError when they are cut off or of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(model, checkpoint.folder / MODEL_FILE, device=str(next(model.parameters()).device))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise damaged(checkpoint.folder, MODEL_FILE, error) from None


def load_training_state(checkpoint: Checkpoint, model: "nn.Module", optimizer: "torch.optim.Optimizer") -> None:
    """Put weights, optimizer state and random states back, so that the next step is the one that would have come.

    Raises ConfigurationError when a file is cut off or of another model; ``model`` may then be half loaded.
    """
    load_model_weights(checkpoint, model)
    moments: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, tensor in _tensors(checkpoint, OPTIMIZER_FILE).items():
        parameter, _, key = name.rpartition("/")
        moments[parameter][key] = tensor
    _put_moments(checkpoint, model, optimizer, moments)
    set_random_state(_tensors(checkpoint, RANDOM_FILE))


def _put_moments(checkpoint: Checkpoint, model: "nn.Module", optimizer: "torch.optim.Optimizer", moments: dict[str, dict[str, Any]]) -> None:
    # Through load_state_dict, which knows on which device each state belongs; it numbers parameters in the order of the groups.
    names = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    if moments and set(moments) != set(ordered):
        raise damaged(checkpoint.folder, OPTIMIZER_FILE, f"state of other parameters: {sorted(set(moments) ^ set(ordered))[0]}")
    numbered = {index: moments[name] for index, name in enumerate(ordered) if name in moments}
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})


def _tensors(checkpoint: Checkpoint, file: str) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(checkpoint.folder / file)
    except (SafetensorError, OSError) as error:
        raise damaged(checkpoint.folder, file, error) from None
    return tensors
