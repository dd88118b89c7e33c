"""A fit as plain data for ``--json``, files and reports."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from calibration.scaling.backtest import Backtest, backtest_document
from calibration.scaling.bootstrap import Ensemble
from calibration.scaling.choice import Choice, choice_document
from calibration.scaling.fit import Fit
from calibration.scaling.forms import Form, LackOfFit
from calibration.scaling.gates import Exclusion
from calibration.scaling.laws import LAWS
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.points import Points
from calibration.scaling.roofline import Roofline
from calibration.scaling.sensitivity import Variant
from calibration.scaling.verdict import LEVEL, Verdict

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Findings:
    """Everything that ``scaling fit`` finds. ``held_out`` rows that were in the table but not in the fit; ``roofline`` None for a law without N or D.

    ``choice`` why the law is this one, None where it was named.
    """

    fit: Fit
    choice: Choice | None
    ensemble: Ensemble
    verdict: Verdict
    backtest: Backtest
    sensitivity: Sequence[Variant]
    forms: Sequence[Form]
    lack_of_fit: LackOfFit | None
    roofline: Roofline | None
    held_out: Points
    excluded: Sequence[Exclusion]
    notes: Sequence[str]


def fit_document(findings: Findings) -> dict[str, Any]:
    """The document of ``scaling fit``; every number at full precision."""
    fit, ensemble, verdict, excluded, notes = findings.fit, findings.ensemble, findings.verdict, findings.excluded, findings.notes
    law = fit.law
    return {
        "schema_version": SCHEMA_VERSION,
        "law": {"name": law.name, "formula": law.formula, "source": law.source},
        "choice": None if findings.choice is None else choice_document(findings.choice),
        "rows": {
            "fitted": len(fit.points),
            "runs": len(set(fit.points.run.tolist())),
            "held_out": len(findings.held_out),
            "excluded": [asdict(exclusion) for exclusion in excluded],
        },
        "notes": list(notes),
        "coefficients": fit.coefficients,
        "covariance": covariance(fit, ensemble),
        "objective": {
            "kind": fit.objective.title,
            "value": fit.value,
            "priors": {name: asdict(prior) for name, prior in fit.objective.priors.items()},
            "mean_absolute_relative_error": mean_absolute_relative_error(fit),
        },
        "intervals": {
            "method": ensemble.method,
            "resamples": len(ensemble.theta),
            "share_converged": ensemble.share_converged,
            "share_confirmed": ensemble.share_confirmed,
            "widening": asdict(ensemble.widening),
            "level": LEVEL,
            "coefficients": coefficient_intervals(fit, ensemble),
        },
        "certificate": asdict(fit.certificate),
        "sensitivity": [asdict(variant) for variant in findings.sensitivity],
        "forms": [asdict(form) for form in findings.forms],
        "lack_of_fit": None if findings.lack_of_fit is None else asdict(findings.lack_of_fit),
        "backtest": backtest_document(findings.backtest),
        "verdict": asdict(verdict),
        "roofline": None if findings.roofline is None else asdict(findings.roofline),
    }


def laws_document() -> dict[str, Any]:
    """The document of ``scaling laws``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "laws": [
            {
                "name": law.name,
                "formula": law.formula,
                "source": law.source,
                "variables": list(law.variables),
                "parameters": [parameter.name for parameter in law.parameters],
                "fitted": isinstance(law, FittedLaw),
                "published": {name: asdict(published) for name, published in law.published.items()},
            }
            for law in LAWS.values()
        ],
    }


def covariance(fit: Fit, ensemble: Ensemble) -> dict[str, Any]:
    """Covariance of what the fit moves (logarithms of scale parameters): A and alpha alone mean little, together they do."""
    import numpy as np

    names = [f"ln {parameter.name}" if parameter.logarithmic else parameter.name for parameter in fit.law.parameters]
    return {"parameters": names, "matrix": np.atleast_2d(np.cov(ensemble.theta, rowvar=False)).tolist()}


def coefficient_intervals(fit: Fit, ensemble: Ensemble) -> Mapping[str, list[float]]:
    """Percentile interval of every coefficient at LEVEL."""
    values = fit.law.natural(ensemble.theta)
    return {parameter.name: list(ensemble.interval(values[:, index], LEVEL)) for index, parameter in enumerate(fit.law.parameters)}


def mean_absolute_relative_error(fit: Fit) -> float:
    """Mean of |measured - predicted| / measured over the fitted rows."""
    import numpy as np

    return float(np.abs(1 - np.exp(-fit.residuals)).mean())
