"""Refits without a block of neighbouring runs: what a fit owes to runs of one scale.

Residuals of a wrong form hang together along compute, so that runs drawn one by one (see bootstrap) promise too much. The jackknife over blocks of
neighbours (Künsch 1989) asks how far the rest of the table foretells the same: for independent residuals it finds what the bootstrap finds.
"""

from calibration.scaling.descent import minimise
from calibration.scaling.fit import Fit
from calibration.scaling.points import Floats, Points

BLOCKS = 8
"""Blocks of equal numbers of runs in the order of compute; assumed."""


def block_refits(fit: Fit) -> Floats:
    """Natural theta [K, p] of refits, each without one block; those that do not converge are left out."""
    import numpy as np

    block = blocks_of(fit.points)
    weights = (block != np.arange(block.max() + 1)[:, None]).astype(float)
    start = np.repeat(fit.centred(fit.theta)[None], len(weights), axis=0)
    found = minimise(fit.problem(weights, fit.points.log_loss[None]), start)
    return fit.law.recentred(found.theta[found.converged], -fit.log_n0, -fit.log_d0)


def blocks_of(points: Points) -> Floats:
    """Number of the block [n] of each row; rows of one run stand in one."""
    import numpy as np

    _, first, of_row = np.unique(points.run, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=int)
    rank[np.argsort(points.log_c[first], kind="stable")] = np.arange(len(first))
    return np.asarray((rank * min(BLOCKS, len(first)) // len(first))[of_row])


def jackknife_sd(values: Floats) -> Floats:
    """Standard deviation [...] of a quantity from its values [K, ...] at the refits without one block."""
    import numpy as np

    count = len(values)
    if count < 2:
        return np.zeros(values.shape[1:])
    return np.asarray(np.sqrt((count - 1) / count * ((values - values.mean(axis=0)) ** 2).sum(axis=0)))
