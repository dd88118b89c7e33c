"""Robust non-negative least squares of the additive cost model.

seconds of an observation = Σ over its quantities of amount × coefficient, coefficients ≥ 0. The residual is relative to the
measured seconds; its loss is soft L1 (scipy.optimize.least_squares), so that a disturbed line does not bend the fit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.device.observations import TRAFFIC, Observation, Quantity, Term
from simulator.components import Kind
from simulator.specs.device import PRICED_KINDS

Floats = NDArray[np.float64]

OUTLIER = 0.1
"""Relative residual from which the loss grows linearly: the scatter of medians of steps on a machine that does other work too."""
FLAT, PART = 1e-12, 1e-4
"""Curvature, of columns of length one, below which a direction is not told; what part in such a direction leaves a coefficient open."""
UNCERTAIN = 0.5
"""Relative standard error above which a bandwidth, or what scores take, counts as not identified."""
OF_ATTENTION: tuple[Term, Term, Term] = ("scores", "backward_scores", "backward_bytes")
"""Terms that stand by themselves only where they can be told: scores apart from FLOPs by heads of several widths, and bytes of the backward from others."""

MEMORY_BOUND = (Kind.POINTWISE, Kind.REDUCE, Kind.GATHER, Kind.SCATTER, Kind.SORT, Kind.OPTIMIZER)


@dataclass(frozen=True)
class Coefficient:
    """Seconds per unit. ``standard_error`` is None when it was not fitted: then ``reason`` says what stands in its place and why."""

    value: float
    standard_error: float | None
    reason: str = ""


@dataclass(frozen=True)
class Fit:
    """``coefficients`` by quantity; a launch that all kinds share stands under each kind with the same value.

    ``shared_bytes``: seconds per byte when all memory-bound kinds have one rate. ``residuals``: predicted over measured minus one.
    """

    coefficients: dict[Quantity, Coefficient]
    shared_bytes: Coefficient
    residuals: Floats


def fit(observations: Sequence[Observation], own_launches: Collection[Kind] = ()) -> Fit:
    """Fit all quantities that ``observations`` hold.

    Kinds in ``own_launches``, timed alone, get a launch overhead of their own where it can be told, all others share one; attention among them also takes its
    time by scores, and bytes in backward apart, where these can be told. A kind whose bytes cannot be told apart from the rest takes the rate that all
    memory-bound kinds share. Each says so.
    """
    own: set[Kind] = set(own_launches)
    of_attention = {quantity for observation in observations for quantity in observation.work if quantity.term in OF_ATTENTION}
    untold = {quantity: "was not timed alone" for quantity in of_attention if quantity.kind not in own}
    fixed: dict[Quantity, Coefficient] = {}
    while True:
        amounts = [_merged(observation.work, own, untold) for observation in observations]
        shared = _shared_rate(observations, amounts)
        free = sorted({quantity for work in amounts for quantity, amount in work.items() if amount} - set(fixed), key=str)
        values, errors = _solve(observations, amounts, free, {quantity: held.value for quantity, held in fixed.items()})
        doubtful = [i for i, quantity in enumerate(free) if not errors[i] <= UNCERTAIN * values[i]]
        moving = [i for i in doubtful if free[i].term in TRAFFIC] if shared.value else []
        launches = {kind for i in doubtful if free[i].term == "launches" and (kind := free[i].kind) in own}
        attention = {free[i]: _uncertain(values[i], errors[i]) for i in doubtful if free[i].term in OF_ATTENTION}
        if attention:
            untold |= attention
        elif moving:
            fixed |= {free[i]: Coefficient(shared.value, None, _doubt(values[i], errors[i])) for i in moving}
        elif launches:
            own -= launches
        else:
            break
    found = {quantity: Coefficient(float(value), float(error)) for quantity, value, error in zip(free, values, errors, strict=True)} | fixed
    predicted = np.array([sum(amount * found[quantity].value for quantity, amount in work.items() if amount) for work in amounts])
    measured = np.array([observation.seconds for observation in observations])
    found |= {quantity: Coefficient(_instead(quantity, found), None, reason) for quantity, reason in untold.items()}
    common = found.pop(_COMMON_LAUNCH, None)
    if common is not None:
        found |= {Quantity("launches", kind): common for kind in PRICED_KINDS if kind not in own}
    return Fit(found, shared, predicted / np.maximum(measured, 1e-12) - 1)


def _doubt(value: float, error: float) -> str:
    return f"the rate that memory-bound kinds share: its own {_uncertain(value, error)} in these measurements"


def _uncertain(value: float, error: float) -> str:
    return "comes out as zero" if value == 0 else f"is uncertain by {error / value:.0%}" if error < np.inf else "cannot be told apart"


def _instead(quantity: Quantity, found: Mapping[Quantity, Coefficient]) -> float:
    """What an untold term of attention costs: its scores nothing, a byte in backward as much as one in forward."""
    return found[quantity._replace(term="bytes")].value if quantity.term in TRAFFIC else 0.0


_COMMON_LAUNCH = Quantity("launches")


def _merged(work: Mapping[Quantity, float], own_launches: Collection[Kind], untold: Collection[Quantity]) -> dict[Quantity, float]:
    merged: dict[Quantity, float] = {}
    for quantity, amount in work.items():
        if quantity in untold and quantity.term not in TRAFFIC:
            continue
        column = _COMMON_LAUNCH if quantity.term == "launches" and quantity.kind not in own_launches else quantity
        column = column._replace(term="bytes") if quantity in untold else column
        merged[column] = merged.get(column, 0.0) + amount
    return merged


def _shared_rate(observations: Sequence[Observation], amounts: Sequence[Mapping[Quantity, float]]) -> Coefficient:
    """Seconds per byte of the same fit with one rate for all memory-bound kinds."""
    one = Quantity("bytes", Kind.POINTWISE)
    pooled: list[dict[Quantity, float]] = []
    for work in amounts:
        row: dict[Quantity, float] = {}
        for quantity, amount in work.items():
            column = one if quantity.term in TRAFFIC and quantity.kind in MEMORY_BOUND else quantity
            row[column] = row.get(column, 0.0) + amount
        pooled.append(row)
    columns = sorted({quantity for work in pooled for quantity, amount in work.items() if amount}, key=str)
    if one not in columns:
        return Coefficient(0.0, None, "no memory-bound kind was measured")
    values, errors = _solve(observations, pooled, columns, {})
    return Coefficient(float(values[columns.index(one)]), float(errors[columns.index(one)]))


def _solve(
    observations: Sequence[Observation], amounts: Sequence[Mapping[Quantity, float]], free: Sequence[Quantity], fixed: Mapping[Quantity, float]
) -> tuple[Floats, Floats]:
    """Coefficients of ``free`` beside those held ``fixed``, and their standard errors (sandwich estimator, HC1: White 1980)."""
    from scipy.optimize import least_squares

    scale = np.array([observation.scale_s for observation in observations])
    measured = np.array([observation.seconds for observation in observations]) / scale
    held = np.array([sum(amount * fixed.get(quantity, 0.0) for quantity, amount in work.items()) for work in amounts]) / scale
    design = np.array([[work.get(quantity, 0.0) for quantity in free] for work in amounts]).reshape(len(amounts), len(free)) / scale[:, None]
    size = np.linalg.norm(design, axis=0)
    design = design / size
    target = measured - held
    start = np.linalg.lstsq(design, target, rcond=None)[0]
    solved = least_squares(
        lambda x: design @ x - target,
        np.maximum(start, 1e-3),
        jac=lambda x: design,
        bounds=(0, np.inf),
        loss="soft_l1",
        f_scale=OUTLIER,
        xtol=1e-12,
        ftol=1e-12,
    )
    values = np.where(solved.x * design.max(axis=0) < 1e-6, 0.0, solved.x)
    return values / size, _standard_errors(design, design @ values - target, values) / size


def _standard_errors(design: Floats, residual: Floats, values: Floats) -> Floats:
    """Errors of the coefficients that are not at their bound of zero; infinite of those that the observations do not tell from others."""
    inside = np.flatnonzero(values > 0)
    errors = np.full(len(values), np.inf)
    active = design[:, inside]
    weight = 1 / np.sqrt(1 + (residual / OUTLIER) ** 2)
    curvature = active.T @ (active * (weight**3)[:, None])
    freedom = len(residual) - len(inside)
    if freedom <= 0:
        return errors
    lengths, axes = np.linalg.eigh(curvature)
    open_ = lengths <= FLAT
    bread = (axes[:, ~open_] / lengths[~open_]) @ axes[:, ~open_].T
    scores = active * (weight * residual)[:, None]
    spread = bread @ (scores.T @ scores) @ bread * len(residual) / freedom
    errors[inside] = np.where((np.abs(axes[:, open_]) > PART).any(axis=1), np.inf, np.sqrt(np.maximum(np.diag(spread), 0.0)))
    return errors
