"""Checkpoints: folders that appear whole or not at all, hold no pickle, and are enough to generate from or to resume exactly."""

from trainer.checkpoints.folder import Checkpoint, checkpoints_in, find_checkpoint, remove_old
from trainer.checkpoints.load import load_model_weights, load_training_state, read_model_tensors
from trainer.checkpoints.save import Saver, save_checkpoint

__all__ = [
    "Checkpoint",
    "Saver",
    "checkpoints_in",
    "find_checkpoint",
    "load_model_weights",
    "load_training_state",
    "read_model_tensors",
    "remove_old",
    "save_checkpoint",
]
