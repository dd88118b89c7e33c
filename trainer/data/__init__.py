"""From text to batches: sources, tokenizer, cached token files, windows of the sequence length and their order."""

from trainer.data.batches import Batch, Batches
from trainer.data.prepare import TokenData, prepare
from trainer.data.tokenizer import Tokenizer

__all__ = ["Batch", "Batches", "TokenData", "Tokenizer", "prepare"]
