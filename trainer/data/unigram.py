"""What the frequencies of single tokens alone explain: the loss that a model has to beat before it has learnt anything about order."""

import numpy as np


def unigram_cross_entropy(training: np.ndarray, validation: np.ndarray, vocabulary: int) -> float:
    """Cross-entropy, in nats per token, of the validation tokens under the training tokens' frequencies.

    One is added to every count (Laplace), so that a token that training never saw has a finite price.
    """
    counts_V = _counts(training, vocabulary) + 1
    log_share_V = np.log(counts_V / counts_V.sum())
    held_out_V = _counts(validation, vocabulary)
    return float(-(held_out_V @ log_share_V) / held_out_V.sum())


def _counts(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    # In pieces: bincount makes eight bytes of every token.
    pieces = (tokens[start : start + 2**24] for start in range(0, len(tokens), 2**24))
    return sum((np.bincount(piece, minlength=vocabulary) for piece in pieces), np.zeros(vocabulary))
