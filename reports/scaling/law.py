"""The fitted law of a run table and its verdict, or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.scaling.bootstrap import Ensemble, bootstrap
from calibration.scaling.fit import Fit, FitError, fit
from calibration.scaling.gates import Exclusion, Gates, gated
from calibration.scaling.laws import fitted_law_named
from calibration.scaling.points import points_of
from calibration.scaling.verdict import Verdict, verdict_at
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunRow


@dataclass(frozen=True)
class Law:
    """A law fitted to the rows that pass the gates, its certainty, and the verdict at the run of most FLOPs."""

    fit: Fit
    ensemble: Ensemble
    verdict: Verdict
    excluded: tuple[Exclusion, ...]


def fitted(rows: Sequence[RunRow], name: str, count: str) -> Law | str:
    """The law, or in one line why these rows do not give one. Raises ConfigurationError for an unknown law or count."""
    law = fitted_law_named(name)
    kept, excluded = gated(rows, Gates())
    if not kept:
        return f"no run passes the gates of a fit (the first: {excluded[0].run}: {excluded[0].reason})"
    points = points_of(kept, count)
    try:
        found = fit(points, law)
    except (ConfigurationError, FitError) as error:
        return str(error)
    ensemble = bootstrap(found)
    return Law(found, ensemble, verdict_at(found, ensemble, points.take([int(points.log_c.argmax())])), tuple(excluded))
