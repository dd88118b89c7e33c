"""The fitted law of a run table with everything that is known about it, or why there is none."""

from calibration.scaling.choice import check_declared, law_or_auto
from calibration.scaling.document import Findings
from calibration.scaling.fit import FitError
from calibration.scaling.study import Settings, study
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunTable


def fitted(table: RunTable, name: str, settings: Settings) -> Findings | str:
    """What the study of the table finds, or in one line why these rows do not give a law. Raises ConfigurationError for an unknown law or prior."""
    law = law_or_auto(name)
    check_declared(settings.objective, law)
    try:
        return study(table, law, settings)
    except (ConfigurationError, FitError) as error:
        return str(error)
