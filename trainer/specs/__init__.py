"""What the trainer alone reads: ``data.yaml`` (where the tokens come from) and ``training.yaml`` (how long and how fast to learn)."""

from trainer.specs.data import DATA, DataSpec, HuggingFaceDataset, KingJames, PythonSource, Source, TextFiles
from trainer.specs.training import TRAINING, Checkpoints, ConstantSchedule, CosineSchedule, Evaluation, Schedule, TrainingSpec

__all__ = [
    "DATA",
    "TRAINING",
    "Checkpoints",
    "ConstantSchedule",
    "CosineSchedule",
    "DataSpec",
    "Evaluation",
    "HuggingFaceDataset",
    "KingJames",
    "PythonSource",
    "Schedule",
    "Source",
    "TextFiles",
    "TrainingSpec",
]
