"""Link profiles from measured collectives: overhead and efficiency per link kind, piecewise in size.

How often a schedule pays each overhead, and how many bytes per byte of message its hottest link of each kind carries, is asked of the pricing itself
(``Shape``); what is fitted are the seconds and the shares. Alternate sizes are fitted, the others are for the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from fabrics.collectives import IN_SWITCH
from fabrics.cost import Placement, price
from fabrics.graph import Fabric
from fabrics.loading import build
from fabrics.network import FloatArray
from fabrics.spec import ByLinkKind, Constant, LinkProfile, Protocol

FAINT = 1e-9
STARTS = 12


@dataclass(frozen=True)
class Measured:
    """Times of one collective on one fabric and placement, by size, both ascending in size."""

    fabric: Fabric
    collective: str
    placement: Placement
    bytes: FloatArray
    time_s: FloatArray
    algorithms: tuple[str, ...] = ("auto",)

    def alternate(self, first: int) -> "Measured":
        """Every other size, from index 0 or 1."""
        return Measured(self.fabric, self.collective, self.placement, self.bytes[first::2], self.time_s[first::2], self.algorithms)


@dataclass(frozen=True)
class Shape:
    """An algorithm on a placement: time = wire_s + overheads . steps + max over kinds of hot / efficiency x bytes; one entry per link kind."""

    kinds: tuple[str, ...]
    wire_s: float
    steps: FloatArray
    hot_s_per_byte: FloatArray

    def over(self, kinds: tuple[str, ...]) -> "Shape":
        """The same over more link kinds, of which it uses some."""
        steps, hot = np.zeros(len(kinds)), np.zeros(len(kinds))
        at = [kinds.index(kind) for kind in self.kinds]
        steps[at], hot[at] = self.steps, self.hot_s_per_byte
        return Shape(kinds, self.wire_s, steps, hot)

    def time_s(self, overhead_s: FloatArray, efficiency: FloatArray, bytes_: FloatArray) -> FloatArray:
        """Time under given constants (one per link kind)."""
        return np.asarray(self.wire_s + self.steps @ overhead_s + (self.hot_s_per_byte / efficiency).max() * bytes_)


def shapes(measured: Measured) -> list[Shape]:
    """The shapes of the algorithms that may run, found by pricing them under probing constants, all at once."""
    kinds = measured.fabric.kinds
    n = len(kinds)
    # A path over several kinds pays the dearest: overheads are switched on from the dearest kind (network) to the cheapest.
    order = sorted(range(n), key=lambda i: kinds[i] != "network")
    on = [[float(i in order[: count + 1]) for i in range(n)] for count in range(n)]
    faint = [[FAINT if k == i else 1.0 for k in range(n)] for i in range(n)]
    found = []
    for algorithm in measured.algorithms:
        only = (algorithm,) if algorithm in IN_SWITCH else ()
        probes = [([0.0] * n, [1.0] * n), *((overhead, [1.0] * n) for overhead in on), *(([0.0] * n, efficiency) for efficiency in faint)]
        protocols = {str(i): _protocol(kinds, 0.0, overhead, efficiency, "probe", only) for i, (overhead, efficiency) in enumerate(probes)}
        spec = measured.fabric.spec.model_copy(update={"link_profile": LinkProfile(name="probe", protocols=protocols)})
        lines = price(build(spec), measured.collective, measured.placement, algorithm=algorithm).lines
        steps = np.zeros(n)
        steps[order] = np.diff([line.latency_s for line in lines[: n + 1]])
        hot = np.array([line.s_per_byte for line in lines[n + 1 :]]) * FAINT
        found.append(Shape(tuple(kinds), lines[0].latency_s, steps, hot))
    return found


def fit_lines(bytes_: FloatArray, time_s: FloatArray, most: int = 3) -> list[tuple[float, float]]:
    """Up to ``most`` lines (seconds, seconds per byte), not negative, whose least value follows the times; relative errors, all segmentations tried."""
    from scipy.optimize import nnls

    def line(part: slice) -> tuple[float, float]:
        weights = 1 / time_s[part]
        scale = bytes_[part].max()
        (latency, slope), _ = nnls(np.c_[weights, bytes_[part] / scale * weights], np.ones(len(weights)))
        return float(latency), float(slope / scale)

    best: tuple[float, list[tuple[float, float]]] = (np.inf, [])
    for count in range(1, most + 1):
        for cuts in combinations(range(2, len(bytes_) - 1), count - 1):
            edges = [0, *cuts, len(bytes_)]
            if min(np.diff(edges)) < 2:
                continue
            lines = [line(slice(low, high)) for low, high in pairwise(edges)]
            error = float(np.abs(np.log(_least(lines, bytes_) / time_s)).mean())
            if error < best[0] - 1e-3:
                best = (error, lines)
    return best[1]


def _least(lines: list[tuple[float, float]], bytes_: FloatArray) -> FloatArray:
    return np.asarray(np.min([latency + slope * bytes_ for latency, slope in lines], axis=0))


def fit_operation(measured: Measured, cite: str) -> dict[str, Protocol]:
    """Protocols of one collective measured on one small group: each line's constant becomes ``base_s``, its slope the efficiency."""
    (shape,) = shapes(measured)
    ideal = float(shape.hot_s_per_byte.max())
    kinds = measured.fabric.kinds
    lines = fit_lines(measured.bytes, measured.time_s)
    taken = np.argmin([latency + slope * measured.bytes for latency, slope in lines], axis=0)
    nothing = {kind: Constant(value=0, source="assumed", cite="within base_s") for kind in kinds}
    protocols = {}
    for i, (latency, slope) in enumerate(lines):
        latency_error, slope_error = _standard_errors(latency, slope, measured.bytes[taken == i], measured.time_s[taken == i])
        share = min(1.0, ideal / slope) if slope > 0 else 1.0
        efficiency = fitted_constant(share, cite, slope_error * share / slope if slope_error is not None and slope > 0 else None)
        protocols[f"fitted{i}"] = Protocol(
            base_s=fitted_constant(latency, cite, latency_error), overhead_s=nothing, gap_s=nothing, efficiency=dict.fromkeys(kinds, efficiency)
        )
    return protocols


def _standard_errors(latency: float, slope: float, bytes_: FloatArray, time_s: FloatArray) -> tuple[float | None, float | None]:
    """Of a line under relative least squares; None with fewer than three points."""
    if len(bytes_) < 3:
        return None, None
    scale = float(bytes_.max())
    design = np.c_[1 / time_s, bytes_ / scale / time_s]
    residual = design @ [latency, slope * scale] - 1
    covariance = np.linalg.pinv(design.T @ design) * (residual @ residual) / (len(bytes_) - 2)
    errors_ = np.sqrt(np.maximum(np.diag(covariance), 0))
    return float(errors_[0]), float(errors_[1] / scale)


def fitted_constant(value: float, cite: str, standard_error: float | None = None) -> Constant:
    """A constant with as many digits as mean anything."""
    error = None if standard_error is None else float(f"{standard_error:.2g}")
    return Constant(value=float(f"{value:.4g}"), source="fitted", cite=cite, standard_error=error)


def fit_source(measured: Sequence[Measured], cite: str, pieces: int = 3) -> LinkProfile:
    """One set of constants for all measurements of a source: per protocol an overhead and an efficiency per link kind, by least squares on log time."""
    from scipy.optimize import least_squares

    kinds = tuple(sorted({kind for part in measured for kind in part.fabric.kinds}))
    known = [[shape.over(kinds) for shape in shapes(part)] for part in measured]
    in_switch = tuple(sorted({name for part in measured for name in part.algorithms if name in IN_SWITCH}))
    target = np.log(np.concatenate([part.time_s for part in measured]))
    n = len(kinds)

    def unpack(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        table = theta.reshape(pieces, 2 * n)
        return np.exp(table[:, :n]), 1 / (1 + np.exp(-table[:, n:]))

    def residuals(theta: FloatArray) -> FloatArray:
        overhead_s, efficiency = unpack(theta)
        return np.asarray(
            np.log(np.concatenate([_predict(shape, overhead_s, efficiency, part.bytes) for shape, part in zip(known, measured, strict=True)])) - target
        )

    # The least of lines and the hottest of kinds make corners in which a descent stops: many starts, always the same ones.
    random = np.random.default_rng(0)
    low, high = np.r_[np.full(n, np.log(1e-6)), np.full(n, -2.5)], np.r_[np.full(n, np.log(1e-3)), np.full(n, 3.0)]
    starts = [random.uniform(np.tile(low, pieces), np.tile(high, pieces)) for _ in range(STARTS)]
    found = min((least_squares(residuals, start, loss="soft_l1", f_scale=0.1) for start in starts), key=lambda result: float(result.cost))
    overhead_s, efficiency = unpack(found.x)
    protocols = {f"fitted{i}": _protocol(kinds, 0.0, overhead_s[i].tolist(), efficiency[i].tolist(), cite, in_switch) for i in range(pieces)}
    return LinkProfile(name="fitted", protocols=protocols)


def _predict(known: list[Shape], overhead_s: FloatArray, efficiency: FloatArray, bytes_: FloatArray) -> FloatArray:
    return np.asarray(
        np.min([shape.time_s(overhead, share, bytes_) for shape in known for overhead, share in zip(overhead_s, efficiency, strict=True)], axis=0)
    )


def predicted_s(measured: Measured, profile: LinkProfile) -> FloatArray:
    """What pricing says for the measured sizes under a profile."""
    fabric = build(measured.fabric.spec.model_copy(update={"link_profile": profile}))
    costs = [price(fabric, measured.collective, measured.placement, algorithm=name).cost(measured.bytes).time_s for name in measured.algorithms]
    return np.asarray(np.min(costs, axis=0))


def errors(measured: Measured, profile: LinkProfile) -> FloatArray:
    """Relative errors of the prediction, signed."""
    return predicted_s(measured, profile) / measured.time_s - 1


def _protocol(kinds: Sequence[str], base_s: float, overhead_s: list[float], efficiency: list[float], cite: str, algorithms: tuple[str, ...] = ()) -> Protocol:
    def table(values: list[float]) -> ByLinkKind:
        return {kind: fitted_constant(value, cite) for kind, value in zip(kinds, values, strict=True)}

    return Protocol(
        algorithms=algorithms,
        base_s=fitted_constant(base_s, cite),
        overhead_s=table(overhead_s),
        gap_s=table([0.0] * len(kinds)),
        efficiency=table(efficiency),
    )
