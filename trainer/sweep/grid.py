"""The runs of a sweep: every point of a grid, resolved and checked before anything is trained."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from configuration.errors import ConfigurationError
from configuration.files import read_yaml
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


def points(settings: Sequence[str], *, model: str, data: str, training: str, plan: str | None, cuda: bool, grid_file: Path | None = None) -> list[Point]:
    """All runs of the grid, the cheapest first: every combination of ``settings`` with every point of ``grid_file``, each run once.

    Raises ConfigurationError naming the first point that cannot be run.
    """
    common = grid_points(parse_grid(settings, KINDS))
    listed: list[dict[str, Any]] = [{}] if grid_file is None else list(read_grids(grid_file))
    twice = {field for values in listed for field in values if field in common[0]}
    if twice:
        raise ConfigurationError(f"{grid_file}: {min(twice)} is set there and by --set: give it once")
    combined = [first | second for first in common for second in listed]
    varied = [field for field in dict.fromkeys(field for values in combined for field in values) if _varies(field, combined)]
    made: dict[str, Point] = {}
    for values in combined:
        try:
            experiment, _ = resolve(model, data, training, plan, split_by_kind(values), cuda=cuda)
        except ConfigurationError as error:
            where = ", ".join(f"{field}={value}" for field, value in values.items())
            raise ConfigurationError(f"{where}: {error}" if where else str(error)) from None
        point = Point({field: values[field] for field in varied if field in values}, experiment)
        made.setdefault(json.dumps(experiment.as_dict(), sort_keys=True), point)
    return sorted(made.values(), key=lambda point: point.experiment.model.active_parameters * point.experiment.training.tokens)


def read_grids(path: Path) -> Iterator[dict[str, Any]]:
    """The points of a grid file: a list of grids, each a list of axes, each a list of alternatives, each a mapping of fields to values.

    An alternative sets fields that go together (a width and its depth); a grid is the product of its axes.
    Raises ConfigurationError for any other content.
    """
    grids = read_yaml(path)
    fault = ConfigurationError(
        f"{path}: expected grids: a list of grids, each a list of axes, each a list of mappings of fields ({', '.join(f'{kind}.FIELD' for kind in KINDS)})"
    )
    content = grids.get("grids") if isinstance(grids, dict) else None
    if not isinstance(content, list) or not content:
        raise fault
    for grid in content:
        if not isinstance(grid, list) or not all(isinstance(axis, list) and axis and all(map(_sets_fields, axis)) for axis in grid):
            raise fault
        for alternatives in product(*grid):
            yield {field: value for alternative in alternatives for field, value in alternative.items()}


def _sets_fields(alternative: Any) -> bool:
    return isinstance(alternative, dict) and all(isinstance(field, str) and field.partition(".")[0] in KINDS for field in alternative)


def _varies(field: str, points: Sequence[Mapping[str, Any]]) -> bool:
    first = points[0].get(field)
    return any(point.get(field) != first for point in points)


def _short(value: Any) -> str:
    text = str(value).replace("/", "_").replace(" ", "")
    return text if len(text) <= 12 else hashlib.sha256(text.encode()).hexdigest()[:6]
