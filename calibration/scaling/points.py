"""The numbers of a run table as arrays: what laws are evaluated at and fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from configuration.errors import ConfigurationError, unknown
from simulator.records.run_table import RunRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]
else:
    Floats = Any

COUNTS = ("active", "active-non-embedding", "total")
"""What may stand for N."""

SAME_COMPUTE = 1e-3
"""Runs whose ln FLOPs differ by less stand on one side of a cut."""


@dataclass(frozen=True)
class Points:
    """Runs as arrays of one length (n runs).

    ``log_n`` ln parameters (active unless chosen otherwise), ``log_d`` ln tokens, ``log_u`` ln unique tokens, ``log_e`` ln experts,
    ``log_k`` ln experts per token, ``log_g`` ln granularity, ``log_total`` ln total parameters, ``log_c`` ln training FLOPs,
    ``log_loss`` ln of the validation loss in nats (NaN where only a prediction is wanted), ``run`` the number of the run that a row belongs to.
    """

    log_n: Floats
    log_d: Floats
    log_u: Floats
    log_e: Floats
    log_k: Floats
    log_g: Floats
    log_total: Floats
    log_c: Floats
    log_loss: Floats
    run: Any

    def __len__(self) -> int:
        return len(self.log_n)

    def take(self, chosen: Any) -> "Points":
        """The rows that ``chosen`` (indices or a mask) names."""
        return Points(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def shifted(self, by_log_n: float, by_log_d: float) -> "Points":
        """The same runs counted in other units: ln N less ``by_log_n``, ln D (and ln U) less ``by_log_d``."""
        return replace(self, log_n=self.log_n - by_log_n, log_d=self.log_d - by_log_d, log_u=self.log_u - by_log_d)


def points_of(rows: Sequence[RunRow], count: str = "active") -> Points:
    """Arrays of ``rows``; ``count`` says which parameters N counts (one of COUNTS). FLOPs that a row lacks are 6 N D.

    Raises ConfigurationError when a row lacks what ``count`` needs.
    """
    import numpy as np

    if count not in COUNTS:
        raise unknown("count", count, COUNTS)
    names = {name: number for number, name in enumerate(dict.fromkeys(row.run for row in rows))}
    n = np.array([_parameters(row, count) for row in rows])
    d = np.array([row.tokens for row in rows])
    flops = np.array([row.training_flops or np.nan for row in rows])
    return Points(
        log_n=np.log(n),
        log_d=np.log(d),
        log_u=np.log([row.unique_tokens or row.tokens for row in rows]),
        log_e=np.log([float(row.experts) for row in rows]),
        log_k=np.log([float(row.top_k) for row in rows]),
        log_g=np.log([row.granularity for row in rows]),
        log_total=np.log([row.total_parameters for row in rows]),
        log_c=np.log(np.where(np.isnan(flops), 6 * n * d, flops)),
        log_loss=np.log([row.validation_loss_nats_per_token for row in rows]),
        run=np.array([names[row.run] for row in rows]),
    )


def points_at(
    n: Any,
    d: Any,
    *,
    experts: Any = 1.0,
    top_k: Any = 1.0,
    total: Any | None = None,
    unique_tokens: Any | None = None,
    granularity: Any = 1.0,
    loss: Any = float("nan"),
) -> Points:
    """Points for evaluation from plain numbers or arrays (broadcast together): N parameters, D tokens and, where a law asks for them, the others."""
    import numpy as np

    given = (n, d, d if unique_tokens is None else unique_tokens, experts, top_k, granularity, n if total is None else total, loss)
    logs = [np.log(np.array(values, dtype=float)) for values in np.broadcast_arrays(*map(np.atleast_1d, given))]
    log_n, log_d, log_u, log_e, log_k, log_g, log_total, log_loss = (values.ravel() for values in logs)
    return Points(log_n, log_d, log_u, log_e, log_k, log_g, log_total, np.log(6) + log_n + log_d, log_loss, np.arange(len(log_n)))


def moved(points: Points, variable: str, by: float) -> Points:
    """The same points with ``variable`` ("n", "d" or "e") multiplied by exp(``by``); fresh tokens come with tokens, inactive parameters with active ones."""
    changed = replace(points, **{f"log_{variable}": getattr(points, f"log_{variable}") + by})
    if variable == "e":
        return changed
    changed = replace(changed, log_c=points.log_c + by)
    return replace(changed, log_u=points.log_u + by) if variable == "d" else replace(changed, log_total=points.log_total + by)


def _parameters(row: RunRow, count: str) -> float:
    if count == "total":
        return row.total_parameters
    if count == "active":
        return row.active_parameters
    if row.embedding_parameters is None:
        raise ConfigurationError(f"run {row.run!r}: embedding_parameters are needed to count {count!r} parameters")
    return row.active_parameters - row.embedding_parameters
