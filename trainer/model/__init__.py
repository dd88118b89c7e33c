"""The model: a decoder that reads like the paper and knows nothing of parallelism, precision or measurement beyond its scopes."""

from trainer.model.build import build_model
from trainer.model.cache import KVCache
from trainer.model.transformer import Losses, MoETransformer

__all__ = ["KVCache", "Losses", "MoETransformer", "build_model"]
