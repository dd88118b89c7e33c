"""The runs of a sweep: every point of a grid, resolved and checked before anything is trained."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configuration.errors import ConfigurationError
from configuration.overrides import grid_points, parse_grid, split_by_kind
from trainer.loop.experiment import KINDS, Experiment, resolve

HASH_DIGITS = 10


@dataclass(frozen=True)
class Point:
    """One run: the fields that vary in the grid, and the experiment that all fields make of the four specifications."""

    settings: Mapping[str, Any]
    experiment: Experiment

    @property
    def name(self) -> str:
        """The settings, shortened, and a hash of the whole resolved experiment: equal names are equal runs."""
        words = "-".join(f"{field.rpartition('.')[2]}{_short(value)}" for field, value in self.settings.items())
        content = json.dumps(self.experiment.as_dict(), sort_keys=True)
        return f"{words or 'run'}-{hashlib.sha256(content.encode()).hexdigest()[:HASH_DIGITS]}"

    @property
    def described(self) -> str:
        """``field=value`` of every field that varies."""
        return ", ".join(f"{field}={value}" for field, value in self.settings.items())


def points(settings: Sequence[str], *, model: str, data: str, training: str, plan: str | None, cuda: bool) -> list[Point]:
    """All runs of the grid, the cheapest first.

    Raises ConfigurationError naming the first point that cannot be run.
    """
    grid = parse_grid(settings, KINDS)
    varied = [field for field, choices in grid.items() if len(choices) > 1]
    made = []
    for values in grid_points(grid):
        try:
            experiment, _ = resolve(model, data, training, plan, split_by_kind(values), cuda=cuda)
        except ConfigurationError as error:
            where = ", ".join(f"{field}={value}" for field, value in values.items())
            raise ConfigurationError(f"{where}: {error}" if where else str(error)) from None
        made.append(Point({field: values[field] for field in varied}, experiment))
    return sorted(made, key=lambda point: point.experiment.model.active_parameters * point.experiment.training.tokens)


def _short(value: Any) -> str:
    text = str(value).replace("/", "_").replace(" ", "")
    return text if len(text) <= 12 else hashlib.sha256(text.encode()).hexdigest()[:6]
