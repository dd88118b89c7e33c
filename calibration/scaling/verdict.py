"""Parameter-bound or data-bound: the two local elasticities compared, and what doubling each quantity gains."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from calibration.scaling.bootstrap import Ensemble
from calibration.scaling.fit import Fit
from calibration.scaling.hull import Hull, hull_at
from calibration.scaling.laws.base import Law
from calibration.scaling.next_run import NextRun, next_runs
from calibration.scaling.points import Floats, Points, moved

LEVEL = 0.95
STEP = 1e-4
"""Half width in ln N of the central difference that gives elasticities; its error is of the order of STEP squared."""

NO_ELASTICITY = 1e-9
"""Smaller elasticities (nats per e-fold) are the rounding of the central difference, or a term that has died out."""

BYTES_PER_PARAMETER = 16.0
"""Training state of mixed precision with Adam: 2 + 2 for the copy and its gradient, 12 for master weights and moments (Rajbhandari et al. 2020)."""

Hours = Callable[[float, float, float], float]
"""Hours of training on some machine, from N active parameters, D tokens and E experts."""


@dataclass(frozen=True)
class Gain:
    """Loss gained (nats per token) by doubling one quantity with the others held, in all and per unit of cost; None where it costs nothing of the kind."""

    doubled: str
    nats: float
    interval: tuple[float, float]
    nats_per_flop: float | None
    nats_per_byte: float | None
    nats_per_hour: float | None


@dataclass(frozen=True)
class Verdict:
    """What limits the loss at one point (``n`` parameters, ``d`` tokens, ``experts``); intervals at LEVEL.

    ``rho`` = (-dL/dlnN) / (-dL/dlnD): above 1 one e-fold of parameters gains more than one of tokens. None for a law that lacks N or D. Intervals are those
    of the bootstrap times the factor that the backtest asks for, those of the loss not under the least half width either; runs scatter about the loss.
    ``floor`` is what no N and D get under, ``floor_share`` its part of the loss.
    """

    n: float
    d: float
    experts: float
    loss: float
    loss_interval: tuple[float, float]
    rho: float | None
    rho_interval: tuple[float, float] | None
    probability_parameter_bound: float | None
    state: str
    floor: float | None
    floor_share: float | None
    gains: tuple[Gain, ...]
    hull: Hull
    next_runs: tuple[NextRun, ...]
    words: str


def elasticity(law: Law, theta: Floats, points: Points, variable: str) -> Floats:
    """Loss gained per e-fold of ``variable`` ("n" or "d"), -dL/dln, in nats [..., n]."""
    down, up = (moved(points, variable, sign * STEP) for sign in (-1, 1))
    return (law.loss(theta, down) - law.loss(theta, up)) / (2 * STEP)


def rho_at(law: Law, theta: Floats, points: Points) -> Floats:
    """Ratio of the elasticities of N and D [..., n]: 1 at the compute optimum of C = 6 N D."""
    import numpy as np

    n, d = (np.maximum(elasticity(law, theta, points, variable), NO_ELASTICITY) for variable in ("n", "d"))
    return np.asarray(n / d)


def verdict_at(fit: Fit, ensemble: Ensemble, point: Points, hours: Hours | None = None) -> Verdict:
    """The verdict at the single ``point``; ``hours`` prices doublings on a machine."""
    import numpy as np

    law = fit.law
    log_loss = law.log_loss(fit.theta, point)
    loss = float(np.exp(log_loss[0]))
    (low,), (high,) = np.exp(ensemble.log_loss_interval(law.log_loss(ensemble.refits, point), log_loss, point, LEVEL))
    rho = interval = probability = log_rho = None
    if {"n", "d"} <= set(law.variables):
        rho = float(rho_at(law, fit.theta, point)[0])
        log_rho = np.log(rho_at(law, ensemble.refits, point)[:, 0])
        drawn = np.exp(ensemble.widened(log_rho, float(np.log(rho))))
        interval = ensemble.interval(drawn, LEVEL)
        probability = float((drawn > 1).mean())
    floor = fit.coefficients[law.floor] if law.floor else None
    gains = tuple(_gain(fit, ensemble, point, variable, hours) for variable in ("n", "d", "e") if variable in law.variables)
    verdict = Verdict(
        n=float(np.exp(point.log_n[0])),
        d=float(np.exp(point.log_d[0])),
        experts=float(np.exp(point.log_e[0])),
        loss=loss,
        loss_interval=(float(low), float(high)),
        rho=rho,
        rho_interval=interval,
        probability_parameter_bound=probability,
        state=_state(interval),
        floor=floor,
        floor_share=None if floor is None else floor / loss,
        gains=gains,
        hull=hull_at(fit.points, law.variables, point),
        next_runs=next_runs(fit, ensemble, point, None if log_rho is None else log_rho[: len(ensemble.theta)]),
        words="",
    )
    return replace(verdict, words=" ".join(part for part in (_words(verdict), verdict.hull.words) if part))


def _state(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "not applicable"
    if interval[0] > 1:
        return "parameter-bound"
    return "data-bound" if interval[1] < 1 else "cannot tell"


def _words(verdict: Verdict) -> str:
    if verdict.rho is None or verdict.rho_interval is None:
        return "This law has no term in N and D both: it cannot say which of them binds."
    low, high = verdict.rho_interval
    numbers = f"rho = {verdict.rho:.3g}, {LEVEL:.0%} interval {low:.3g} to {high:.3g}, P(rho > 1) = {verdict.probability_parameter_bound:.0%}"
    place = f"At {verdict.n:.3g} parameters and {verdict.d:.3g} tokens"
    if verdict.state == "cannot tell":
        return f"{place} the table cannot tell whether parameters or data bind ({numbers})."
    more, less = ("parameters", "tokens") if verdict.state == "parameter-bound" else ("tokens", "parameters")
    return f"{place} training is {verdict.state}: more {more} gain more than the same factor in {less} ({numbers})."


def _gain(fit: Fit, ensemble: Ensemble, point: Points, variable: str, hours: Hours | None) -> Gain:
    import numpy as np

    doubled = moved(point, variable, float(np.log(2)))
    nats = float((fit.law.loss(fit.theta, point) - fit.law.loss(fit.theta, doubled))[0])
    drawn = (fit.law.loss(ensemble.refits, point) - fit.law.loss(ensemble.refits, doubled))[:, 0]
    (n, d, e), (n2, d2, e2) = ([float(np.exp(getattr(p, f"log_{v}")[0])) for v in ("n", "d", "e")] for p in (point, doubled))
    flops = 6 * (n2 * d2 - n * d)
    memory = BYTES_PER_PARAMETER * _parameters_added(point, variable)
    time = 0.0 if hours is None else hours(n2, d2, e2) - hours(n, d, e)
    per = [nats / cost if cost else None for cost in (flops, memory, time)]
    return Gain({"n": "N", "d": "D", "e": "E"}[variable], nats, ensemble.interval(ensemble.widened(drawn, nats), LEVEL), *per)


def _parameters_added(point: Points, variable: str) -> float:
    """Parameters that a doubling adds: of N as many as there are; of E another E experts, of the size of the inactive E - k (0: unknown of a dense model)."""
    import numpy as np

    total, active, experts, top_k = (float(np.exp(getattr(point, f"log_{name}")[0])) for name in ("total", "n", "e", "k"))
    if variable == "n":
        return total
    if variable == "d" or experts <= top_k:
        return 0.0
    return max(total - active, 0.0) * experts / (experts - top_k)
