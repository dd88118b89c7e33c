"""Text from a model, token by token."""

from trainer.generation.repetition import repeated_ngram_share
from trainer.generation.sampling import Sampling
from trainer.generation.text import Completion, check_prompt, generate
from trainer.generation.tokens import next_tokens

__all__ = ["Completion", "Sampling", "check_prompt", "generate", "next_tokens", "repeated_ngram_share"]
