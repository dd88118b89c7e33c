"""A whole study of one run table: gate the rows, fit, resample, test on held-out compute, and judge."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from calibration.scaling.backtest import ORIGINS, backtest
from calibration.scaling.bootstrap import RESAMPLES, bootstrap
from calibration.scaling.choice import Auto, choice_notes, taken
from calibration.scaling.document import Findings
from calibration.scaling.fit import fit
from calibration.scaling.forms import compare, lack_of_fit
from calibration.scaling.gates import Gates, gated
from calibration.scaling.laws import LAWS
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.objective import Objective
from calibration.scaling.points import Points, points_of
from calibration.scaling.roofline import roofline_at
from calibration.scaling.sensitivity import variants
from calibration.scaling.verdict import Hours, verdict_at
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunTable


@dataclass(frozen=True)
class Settings:
    """How a study is made. ``holdout_above_flops`` keeps larger runs out of the fit; ``origins`` rolling cuts of the backtest."""

    objective: Objective = field(default_factory=Objective)
    gates: Gates = field(default_factory=Gates)
    count: str = "active"
    holdout_above_flops: float | None = None
    origins: int = ORIGINS
    resamples: int = RESAMPLES
    seed: int = 0


def study(table: RunTable, law: FittedLaw | Auto, settings: Settings, point: Points | None = None, hours: Hours | None = None) -> Findings:
    """Fit ``law`` to ``table`` and judge it at ``point`` (the table's run of most compute when None); ``hours`` prices doublings on a machine.

    Auto takes the law that the runs not held out choose.
    Raises ConfigurationError when the rows cannot determine the law, FitError when the fit does not converge.
    """
    import math

    import numpy as np

    kept, excluded = gated(table.rows, settings.gates)
    if not kept:
        raise ConfigurationError(f"no run passes the gates; the first: run {excluded[0].run!r}: {excluded[0].reason}")
    points = points_of(kept, settings.count)
    cut = math.inf if settings.holdout_above_flops is None else math.log(settings.holdout_above_flops)
    below = points.log_c <= cut
    if not below.any():
        raise ConfigurationError(f"--holdout-above {settings.holdout_above_flops:g}: no run has so few FLOPs (the least: {math.exp(points.log_c.min()):.4g})")
    seen = points.take(below)
    fitted, choice = taken(law, seen, settings.objective, settings.seed)
    found = fit(seen, fitted, settings.objective, seed=settings.seed)
    tested = backtest(points, law, settings.objective, cut_flops=settings.holdout_above_flops, origins=settings.origins, seed=settings.seed)
    ensemble = replace(bootstrap(found, resamples=settings.resamples, seed=settings.seed), widening=tested.widening)
    place = points.take([int(np.argmax(points.log_c))]) if point is None else point
    return Findings(
        fit=found,
        choice=choice,
        ensemble=ensemble,
        verdict=verdict_at(found, ensemble, place, hours),
        backtest=tested,
        sensitivity=variants(found, place, settings.seed),
        forms=compare(seen, law.candidates if isinstance(law, Auto) else _forms(fitted), settings.objective, settings.seed),
        lack_of_fit=lack_of_fit(found.points, found.residuals, len(found.theta)),
        roofline=roofline_at(found, ensemble, place),
        held_out=points.take(~below),
        excluded=excluded,
        notes=[*table.notes, *_ignored(seen, fitted), *([] if choice is None else choice_notes(choice, seen))],
    )


def _forms(law: FittedLaw) -> tuple[FittedLaw, ...]:
    """The law and those that know nothing more than it: what it must do better than."""
    return tuple(other for other in LAWS.values() if isinstance(other, FittedLaw) and set(other.variables) <= set(law.variables))


def _ignored(points: Points, law: FittedLaw) -> Sequence[str]:
    """What varies in the table although the law does not know it."""
    import numpy as np

    names = {"e": "the number of experts", "g": "granularity", "d": "the number of tokens"}
    # A dense model has no granularity to compare.
    logs = {"g": points.log_g[points.log_e > 0]} | {variable: getattr(points, f"log_{variable}") for variable in ("e", "d")}
    return [
        f"{name} varies in the table, law {law.name} does not know it"
        for variable, name in names.items()
        if variable not in law.variables and len(logs[variable]) and np.ptp(logs[variable]) > 0.01
    ]
