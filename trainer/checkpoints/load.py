"""Read a checkpoint back, under whatever plan: each rank reads the parts that its own tensors lack."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from trainer.checkpoints.folder import Checkpoint, damaged
from trainer.checkpoints.random_state import set_random_state
from trainer.checkpoints.state import MODEL, OPTIMIZER, RANDOM, model_tensors, moment_tensors, parts
from trainer.parallel.world import World

if TYPE_CHECKING:
    import torch
    from torch import nn


def load_model_weights(checkpoint: Checkpoint, model: "nn.Module", world: World | None = None) -> None:
    """Put the weights of ``checkpoint`` into ``model``. Raises ConfigurationError when they are cut off or of another model."""
    _read(checkpoint, model_tensors(model, world or World(checkpoint.experiment.plan)))


def read_model_tensors(checkpoint: Checkpoint) -> "dict[str, torch.Tensor]":
    """All weights, whole, in the types they are kept in. Raises ConfigurationError when they are cut off."""
    return {name.removeprefix(MODEL): tensor for name, tensor in read_tensors(checkpoint, MODEL).items()}


def read_tensors(checkpoint: Checkpoint, prefix: str = "") -> "dict[str, torch.Tensor]":
    """Everything in a checkpoint whose name begins with ``prefix``, whole. Raises ConfigurationError when it is cut off."""
    import torch

    tensors = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in _stored(checkpoint).items() if name.startswith(prefix)}
    _read(checkpoint, tensors)
    return tensors


def load_training_state(checkpoint: Checkpoint, model: "nn.Module", optimizer: "torch.optim.Optimizer", world: World | None = None) -> None:
    """Put weights, optimizer state and random states back, so that the next step is the one that would have come.

    ``world``: this rank's place; left out, the process holds all. A rank that the saving plan did not have keeps the random state it has.
    Raises ConfigurationError when a file is cut off or of another model; ``model`` may then be half loaded.
    """
    import torch

    world = world or World(checkpoint.experiment.plan)
    stored = _stored(checkpoint)
    tensors = model_tensors(model, world)
    parameters = dict(model.named_parameters())
    moments: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    keys: dict[str, list[str]] = defaultdict(list)
    for name in stored:
        if name.startswith(OPTIMIZER):
            part, _, key = name.removeprefix(OPTIMIZER).rpartition(".")
            keys[part].append(key)
    for name, parameter in parameters.items():
        part = next(iter(parts(name, parameter.detach())))
        for key in keys[part]:
            size, dtype = stored[f"{OPTIMIZER}{part}.{key}"]
            divided = size == stored[f"{MODEL}{part}"][0]
            value = torch.zeros_like(parameter.detach(), dtype=dtype) if divided else torch.zeros(size, dtype=dtype)
            moments[name][key] = value
            tensors |= moment_tensors(name, key, value, world, divided=divided)
    own = f"{RANDOM}{world.rank}."
    random = {name.removeprefix(own): torch.zeros(size, dtype=dtype) for name, (size, dtype) in stored.items() if name.startswith(own)}
    _read(checkpoint, tensors | {f"{own}{device}": state for device, state in random.items()})
    _put_moments(checkpoint, parameters, optimizer, moments)
    if random:
        set_random_state(random)


def _put_moments(checkpoint: Checkpoint, parameters: "dict[str, nn.Parameter]", optimizer: "torch.optim.Optimizer", moments: dict[str, Any]) -> None:
    # Through load_state_dict, which knows on which device each state belongs; it numbers parameters in the order of the groups.
    names = {parameter: name for name, parameter in parameters.items()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    if moments and set(moments) != set(ordered):
        raise damaged(checkpoint.folder, f"the optimizer's state is of other parameters: {sorted(set(moments) ^ set(ordered))[0]}")
    numbered = {index: moments[name] for index, name in enumerate(ordered) if name in moments}
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})


def _stored(checkpoint: Checkpoint) -> "dict[str, tuple[torch.Size, torch.dtype]]":
    """Whole shape and type of each tensor in the checkpoint."""
    from safetensors import SafetensorError
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        metadata = HuggingFaceStorageReader(str(checkpoint.folder)).read_metadata()
    except (SafetensorError, OSError) as error:
        raise damaged(checkpoint.folder, error) from None
    return {name: (tensor.size, tensor.properties.dtype) for name, tensor in metadata.state_dict_metadata.items() if isinstance(tensor, TensorStorageMetadata)}


def _read(checkpoint: Checkpoint, tensors: "dict[str, torch.Tensor]") -> None:
    """Fill ``tensors`` in place."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    from trainer.checkpoints.save import silence_torch

    silence_torch()
    try:
        load(tensors, storage_reader=HuggingFaceStorageReader(str(checkpoint.folder)))
    except CheckpointException as failed:
        raise damaged(checkpoint.folder, next(iter(failed.failures.values()))[0]) from None
