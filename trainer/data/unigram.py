"""What the frequencies of single tokens alone explain: the loss that a model has to beat before it has learnt anything about order."""

import numpy as np


def unigram_cross_entropy(training: np.ndarray, validation: np.ndarray, vocabulary: int) -> float:
    """Cross-entropy, in nats per token, of the validation tokens under the training tokens' frequencies.

    One is added to every count (Laplace), so that a token that training never saw has a finite price.
    """
    counts_V = np.bincount(training, minlength=vocabulary).astype(np.float64) + 1
    log_share_V = np.log(counts_V / counts_V.sum())
    held_out_V = np.bincount(validation, minlength=vocabulary)
    return float(-(held_out_V @ log_share_V) / held_out_V.sum())
