"""Make a run out of a folder in Hugging Face's layout: its weights are the state before the first step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configuration.errors import ConfigurationError
from configuration.files import read_json
from trainer.checkpoints import save_checkpoint
from trainer.hugging_face.export import CONFIG, TOKENIZER
from trainer.hugging_face.names import pairs
from trainer.loop.experiment import Experiment
from trainer.loop.run_folder import create_run_folder

if TYPE_CHECKING:
    from torch import Tensor, nn


def import_run(folder: Path, experiment: Experiment, run_folder: Path, log: Callable[[str], None]) -> Path:
    """Make ``run_folder`` with a checkpoint of step 0 that holds the weights of ``folder``; returns the checkpoint.

    Raises ConfigurationError before anything is written when a weight is missing, left over, of another shape, or the data lack text.
    """
    from trainer.data import prepare
    from trainer.model import build_model
    from trainer.optimizer import build_optimizer

    training = experiment.training
    model = build_model(experiment.model, experiment.plan, seed=training.seed)
    load_weights(folder, model, experiment)
    data = prepare(experiment.data, experiment.model.vocabulary, log)
    optimizer = build_optimizer(model, experiment.plan, learning_rate=training.learning_rate, weight_decay=training.weight_decay)
    create_run_folder(run_folder, experiment)
    return save_checkpoint(run_folder, 0, model, optimizer, experiment=experiment, data_key=data.facts.key, tokenizer=data.tokenizer)


def load_weights(folder: Path, model: "nn.Module", experiment: Experiment) -> None:
    """Put the weights of ``folder`` into ``model``. Raises ConfigurationError when one is missing, left over or of another shape."""
    import torch

    from trainer.checkpoints.state import parts

    family = str(read_json(folder / CONFIG, "import").get("model_type"))
    theirs = _read(folder)
    own = {name: part for parameter, tensor in model.state_dict().items() for name, part in parts(parameter, tensor).items()}
    used = set()
    for pair in pairs(experiment.model, family):
        try:
            tensor = pair.join(theirs)
        except KeyError as absent:
            raise ConfigurationError(f"import: {folder} has no tensor {absent.args[0]}") from None
        used |= set(pair.theirs)
        if tensor.shape != own[pair.ours].shape:
            raise ConfigurationError(f"import: {folder}: {pair.theirs[0]} has the shape {list(tensor.shape)}, the model's is {list(own[pair.ours].shape)}")
        with torch.no_grad():
            own[pair.ours].copy_(tensor)
    # Some writers repeat a tied head.
    left = set(theirs) - used - ({"lm_head.weight"} if experiment.model.tied_embeddings else set())
    if left:
        raise ConfigurationError(f"import: {folder}: no place for {len(left)} tensors, such as {min(left)}")


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """Fields of ``data.yaml`` that make the data use the folder's own tokenizer, and its end token after each document."""
    file = folder / TOKENIZER
    if not file.is_file():
        raise ConfigurationError(f"import: {folder} has no {TOKENIZER}: say what its ids mean with --set data.tokenizer=FILE")
    end = read_json(folder / CONFIG, "import").get("eos_token_id")
    added = {token["id"]: token["content"] for token in json.loads(file.read_text(encoding="utf-8")).get("added_tokens", [])}
    return {"tokenizer": str(file.resolve()), "begin_token": False, "end_token": added.get(end[0] if isinstance(end, list) else end, False)}


def _read(folder: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigurationError(f"import: {folder} has no safetensors file (pickled weights are not read)")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ConfigurationError(f"import: {file} is damaged or cut off ({error})") from None
    return tensors
