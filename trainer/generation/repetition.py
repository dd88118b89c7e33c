"""How much a text repeats itself."""

from collections.abc import Sequence


def repeated_ngram_share(tokens: Sequence[int], n: int = 4) -> float:
    """Share of the n-grams of ``tokens`` that occurred before in them; 0 when they are too few for one n-gram."""
    ngrams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
