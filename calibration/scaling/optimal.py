"""The document of ``scaling optimal``: from a fitted table or a published coefficient set to choices and their cross-checks."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from calibration.scaling.allocation import BAND, Budget, Choice, Memory, allocate, expert_share
from calibration.scaling.bootstrap import bootstrap
from calibration.scaling.cross_checks import CrossCheck, cross_checks
from calibration.scaling.document import SCHEMA_VERSION
from calibration.scaling.fit import fit
from calibration.scaling.gates import gated
from calibration.scaling.laws.base import FittedLaw, Law
from calibration.scaling.points import points_of
from calibration.scaling.study import Settings
from calibration.scaling.verdict import LEVEL
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunTable


def optimal_of_published(law: Law, name: str, budget: Budget, experts: Sequence[float], top_k: float, memory_gb: float | None) -> dict[str, Any]:
    """Choices by a published coefficient set; without intervals, for it comes without a covariance. Raises ConfigurationError (see allocate)."""
    theta = law.published_theta(name)
    choices = allocate(law, theta, budget, experts, top_k=top_k, memory=_memory(memory_gb, None))
    return _document(law, law.published[name].source, theta, budget, choices, ())


def optimal_of_table(
    table: RunTable, law: FittedLaw, settings: Settings, budget: Budget, experts: Sequence[float] | None, top_k: float, memory_gb: float | None
) -> dict[str, Any]:
    """Choices by the law fitted to ``table``; experts are the table's when None.

    Raises ConfigurationError (see fit and allocate), FitError when the fit does not converge.
    """
    import numpy as np

    kept, _ = gated(table.rows, settings.gates)
    if not kept:
        raise ConfigurationError("no run passes the gates")
    points = points_of(kept, settings.count)
    found = fit(points, law, settings.objective, seed=settings.seed)
    ensemble = bootstrap(found, resamples=settings.resamples, seed=settings.seed)
    levels = experts or ([float(level) for level in np.unique(np.round(np.exp(points.log_e)))] if "e" in law.variables else [float(np.exp(points.log_e[0]))])
    choices = allocate(law, found.theta, budget, levels, top_k=top_k, memory=_memory(memory_gb, expert_share(points)), ensemble=ensemble, seen=points)
    # The other methods know nothing of inference or of repetition: they are asked about plain training.
    plain = budget.inference_tokens == 0 and budget.unique_tokens is None
    checks = cross_checks(points, law, found.theta, budget.flops, choices[0].experts, choices[0].loss) if plain and not choices[0].limited_by_memory else ()
    return _document(law, f"fitted to {len(points)} runs", found.theta, budget, choices, checks)


def _memory(limit_gb: float | None, share: float | None) -> Memory:
    if limit_gb is None:
        return Memory(expert_share=share)
    if not limit_gb > 0:
        raise ConfigurationError(f"--memory: expected a positive number of GB, got {limit_gb}")
    return Memory(limit_gb * 1e9, share)


def _document(law: Law, origin: str, theta: Any, budget: Budget, choices: Sequence[Choice], checks: Sequence[CrossCheck]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "law": {"name": law.name, "formula": law.formula, "coefficients_from": origin, "coefficients": law.coefficients_of(theta)},
        "budget": asdict(budget),
        "level": LEVEL,
        "band": BAND,
        "choices": [asdict(choice) for choice in choices],
        "cross_checks": [asdict(check) for check in checks],
    }
