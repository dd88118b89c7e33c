"""Two forecasts that a law must beat to be worth its parameters: a power law without a floor, and the nearest run."""

from calibration.scaling.points import Floats, Points

AXES = ("log_n", "log_d", "log_e")


def no_floor(seen: Points, asked: Points) -> Floats:
    """ln L at ``asked`` from ln L linear in ln N, ln D and ln E (those that vary in ``seen``), by least squares."""
    import numpy as np

    design, wanted = ([np.ones(len(points)), *_coordinates(seen, points)] for points in (seen, asked))
    weights, *_ = np.linalg.lstsq(np.stack(design, axis=1), seen.log_loss, rcond=None)
    return np.asarray(np.stack(wanted, axis=1) @ weights)


def nearest_run(seen: Points, asked: Points) -> Floats:
    """ln L at ``asked``: that of the run of ``seen`` at the least distance in (ln N, ln D, ln E)."""
    import numpy as np

    here, there = (np.stack(_coordinates(seen, points), axis=1) for points in (seen, asked))
    distance = ((there[:, None] - here[None]) ** 2).sum(axis=2)
    return np.asarray(seen.log_loss[distance.argmin(axis=1)])


def _coordinates(seen: Points, points: Points) -> list[Floats]:
    """The axes of ``points`` along which ``seen`` varies; ln N alone when nothing does."""
    import numpy as np

    varying = [axis for axis in AXES if np.ptp(getattr(seen, axis)) > 0] or ["log_n"]
    return [getattr(points, axis) for axis in varying]
