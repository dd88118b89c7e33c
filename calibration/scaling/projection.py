"""Starts by variable projection: for given exponents the factors of a law are a non-negative least-squares problem."""

from calibration.scaling.points import Floats, Points

GRID = tuple(0.05 * step for step in range(1, 20))
SMALLEST_FACTOR = 1e-4


def projected(points: Points, *, tied: bool = False, keep: int = 5) -> Floats:
    """The best ``keep`` starts (ln E, ln A, ln B, alpha, beta) [keep, 5] of the Chinchilla form over a grid of exponents.

    Residuals are relative to each loss. ``tied`` holds alpha = beta.
    """
    import numpy as np
    from scipy.optimize import nnls

    inverse = np.exp(-points.log_loss)
    found = []
    for alpha in GRID:
        for beta in (alpha,) if tied else GRID:
            design = np.stack([np.ones(len(points)), np.exp(-alpha * points.log_n), np.exp(-beta * points.log_d)], axis=1) * inverse[:, None]
            factors, residual = nnls(design, np.ones(len(points)))
            found.append((residual, [*np.log(np.maximum(factors, SMALLEST_FACTOR)), alpha, beta]))
    found.sort(key=lambda start: start[0])
    return np.array([theta for _, theta in found[:keep]])
