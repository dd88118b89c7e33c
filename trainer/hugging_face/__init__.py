"""Weights from and to the layouts of Hugging Face: config.json, safetensors, tokenizer.json."""

from trainer.hugging_face.export import export_checkpoint
from trainer.hugging_face.imports import import_run

__all__ = ["export_checkpoint", "import_run"]
