"""The documents of ``scaling optimal``: from a fitted table or a published coefficient set to choices and their cross-checks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from calibration.scaling.allocation import BAND, Budget, Memory, allocate, expert_share
from calibration.scaling.backtest import widening
from calibration.scaling.bootstrap import Ensemble, bootstrap
from calibration.scaling.choice import Auto, choice_notes, taken
from calibration.scaling.cluster import Cluster, allocate_hours
from calibration.scaling.cross_checks import cross_checks
from calibration.scaling.document import SCHEMA_VERSION
from calibration.scaling.fit import fit
from calibration.scaling.gates import gated
from calibration.scaling.laws.base import FittedLaw, Law
from calibration.scaling.points import Floats, Points, points_of
from calibration.scaling.study import Settings
from calibration.scaling.verdict import LEVEL
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunTable


@dataclass(frozen=True)
class Source:
    """A law with coefficients and where they are from; ``points`` and ``ensemble`` None for a published set, which comes without runs and covariance."""

    law: Law
    theta: Floats
    origin: str
    points: Points | None
    ensemble: Ensemble | None


def source_of_published(law: Law, name: str) -> Source:
    """A published coefficient set. Raises ConfigurationError for an unknown one."""
    theta = law.published_theta(name)
    return Source(law, theta, law.published[name].source, None, None)


def source_of_table(table: RunTable, law: FittedLaw | Auto, settings: Settings) -> Source:
    """The law, or the one that the rows choose, fitted to all rows that pass the gates.

    Raises ConfigurationError (see fit), FitError when the fit does not converge.
    """
    kept, _ = gated(table.rows, settings.gates)
    if not kept:
        raise ConfigurationError("no run passes the gates")
    points = points_of(kept, settings.count)
    fitted, choice = taken(law, points, settings.objective, settings.seed)
    found = fit(points, fitted, settings.objective, seed=settings.seed)
    because = [] if choice is None else [choice.words, *choice_notes(choice, points)]
    origin = "; ".join([f"fitted to {len(points)} runs", *because])
    sampled = bootstrap(found, resamples=settings.resamples, seed=settings.seed)
    return Source(fitted, found.theta, origin, points, replace(sampled, widening=widening(points, law, settings.objective, settings.seed)))


def optimal_document(source: Source, budget: Budget, experts: Sequence[float] | None, top_k: float, memory_gb: float | None) -> dict[str, Any]:
    """Choices for a budget of FLOPs; ``experts`` are the table's when None. Raises ConfigurationError (see allocate)."""
    if memory_gb is not None and not memory_gb > 0:
        raise ConfigurationError(f"--memory: expected a positive number of GB, got {memory_gb}")
    law, points = source.law, source.points
    share = None if points is None else expert_share(points)
    memory = Memory(expert_share=share) if memory_gb is None else Memory(memory_gb * 1e9, share)
    levels = experts or _levels(source)
    choices = allocate(law, source.theta, budget, levels, top_k=top_k, memory=memory, ensemble=source.ensemble, seen=points)
    best = choices[0]
    # The other methods know nothing of inference, of repetition or of memory: they are asked about plain training.
    plain = budget.inference_tokens == 0 and budget.unique_tokens is None and not best.limited_by_memory
    checks = cross_checks(points, law, source.theta, budget.flops, best.experts, best.loss) if plain and points is not None else ()
    return {
        **_head(source),
        "budget": asdict(budget),
        "choices": [asdict(choice) for choice in choices],
        "cross_checks": [asdict(check) for check in checks],
    }


def hours_document(source: Source, hours: float, cluster: Cluster, experts: Sequence[float] | None) -> dict[str, Any]:
    """Choices for hours on a fabric; ``experts`` are the template's when None. Raises ConfigurationError (see allocate_hours)."""
    levels = [None] if experts is None else [round(count) for count in experts]
    choices = allocate_hours(source.law, source.theta, hours, cluster, levels, ensemble=source.ensemble, seen=source.points)
    best = choices[0].candidate
    largest = max(choice.candidate.factor for choice in choices if choice.candidate.experts == best.experts)
    return {
        **_head(source),
        "budget": {"hours": hours, **asdict(cluster)},
        "largest_is_best": best.factor == largest,
        "choices": [asdict(choice) for choice in choices],
    }


def _levels(source: Source) -> list[float]:
    import numpy as np

    if source.points is None:
        return [1.0]
    if "e" not in source.law.variables:
        return [float(np.exp(source.points.log_e[0]))]
    return [float(level) for level in np.unique(np.round(np.exp(source.points.log_e)))]


def _head(source: Source) -> dict[str, Any]:
    law = source.law
    return {
        "schema_version": SCHEMA_VERSION,
        "law": {"name": law.name, "formula": law.formula, "coefficients_from": source.origin, "coefficients": law.coefficients_of(source.theta)},
        "level": LEVEL,
        "band": BAND,
    }
