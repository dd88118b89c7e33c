"""Write a checkpoint: beside its place first, then moved there whole."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from configuration.command import to_json
from trainer.checkpoints.folder import MODEL_FILE, OPTIMIZER_FILE, RANDOM_FILE, STATE_FILE, TOKENIZER_FILE, checkpoint_name
from trainer.checkpoints.random_state import random_state
from trainer.data.tokenizer import Tokenizer
from trainer.loop.experiment import Experiment

if TYPE_CHECKING:
    import torch
    from torch import nn


def save_checkpoint(
    run: Path, step: int, model: "nn.Module", optimizer: "torch.optim.Optimizer", *, experiment: Experiment, data_key: str, tokenizer: Tokenizer
) -> Path:
    """Save the state after ``step`` steps as a folder of ``run``; returns the folder. A checkpoint of the same step is replaced."""
    from safetensors.torch import save_file, save_model

    final = run / "checkpoints" / checkpoint_name(step)
    temporary = final.with_name(f".writing-{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_model(model, str(temporary / MODEL_FILE))
    save_file(optimizer_tensors(model, optimizer), temporary / OPTIMIZER_FILE)
    save_file(random_state(), temporary / RANDOM_FILE)
    (temporary / TOKENIZER_FILE).write_text(tokenizer.to_json(), encoding="utf-8")
    state = {"schema_version": 1, "step": step, "data_key": data_key, "experiment": experiment.as_dict()}
    (temporary / STATE_FILE).write_text(to_json(state), encoding="utf-8")
    _to_disk(temporary)
    if final.is_dir():
        shutil.rmtree(final)
    temporary.rename(final)
    _sync(final.parent)
    return final


def optimizer_tensors(model: "nn.Module", optimizer: "torch.optim.Optimizer") -> "dict[str, torch.Tensor]":
    """The optimizer's state as "PARAMETER/STATE" to tensor; settings such as the learning rate follow from the experiment."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _to_disk(folder: Path) -> None:
    """After this a power cut finds the files whole; the rename that follows makes them visible."""
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
