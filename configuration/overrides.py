"""``--set plan.micro_batch=4``: fields named on the command line, with comma lists where there is a sweep."""

from collections.abc import Iterable
from itertools import product
from typing import Any

from configuration.errors import ConfigurationError, unknown

Overrides = dict[str, dict[str, Any]]
"""Specification ("plan") to dotted field ("micro_batch") to value."""


def parse_grid(settings: Iterable[str], kinds: Iterable[str]) -> dict[str, list[Any]]:
    """Turn ``plan.micro_batch=1,2`` texts into {"plan.micro_batch": [1, 2]}.

    ``kinds`` are the specifications that the command knows. Values are read as YAML scalars or flow lists.
    Raises ConfigurationError for a text without ``=`` or an unknown specification.
    """
    known = list(kinds)
    grid: dict[str, list[Any]] = {}
    for text in settings:
        field, equals, value = text.partition("=")
        kind, dot, rest = field.strip().partition(".")
        if not equals or not dot or not rest or not value.strip():
            raise ConfigurationError(f"--set {text}: expected SPECIFICATION.FIELD=VALUE, for one plan.micro_batch=4")
        if kind not in known:
            raise unknown(f"--set {text}", kind, known)
        if field.strip() in grid:
            raise ConfigurationError(f"--set {text}: {field.strip()} is set twice")
        grid[field.strip()] = _values(value, text)
    return grid


def parse_single(settings: Iterable[str], kinds: Iterable[str]) -> Overrides:
    """Like ``parse_grid`` for commands that answer one question: a comma list is refused."""
    overrides: Overrides = {}
    for field, values in parse_grid(settings, kinds).items():
        if len(values) != 1:
            raise ConfigurationError(f"--set {field}: one value expected here, got {len(values)}; lists are for 'sweep'")
        kind, _, rest = field.partition(".")
        overrides.setdefault(kind, {})[rest] = values[0]
    return overrides


def grid_points(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of a grid, the last field fastest: [{"plan.micro_batch": 1, ...}, ...]."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def split_by_kind(point: dict[str, Any]) -> Overrides:
    """Group one point of a grid by specification."""
    overrides: Overrides = {}
    for field, value in point.items():
        kind, _, rest = field.partition(".")
        overrides.setdefault(kind, {})[rest] = value
    return overrides


def assign(data: dict[str, Any], field: str, value: Any, source: str) -> None:
    """Set a dotted ``field`` in nested plain ``data``; parts that are numbers index lists. Unknown names are left to validation."""
    parts = field.split(".")
    node: Any = data
    for part in parts[:-1]:
        node = node[_index(node, part, source)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ConfigurationError(f"{source}: {part!r} holds a single value and has no fields")
    last = parts[-1]
    if isinstance(node, list):
        node[_index(node, last, source)] = value
    else:
        node[last] = value


def _index(items: list[Any], part: str, source: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigurationError(f"{source}: {part!r} is no index of a list of {len(items)} (0 to {len(items) - 1})")
    return int(part)


def _values(text: str, setting: str) -> list[Any]:
    import yaml

    try:
        # A flow sequence keeps commas inside brackets together: "[1,2],[3]" is two lists.
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        raise ConfigurationError(f"--set {setting}: the value is not readable as YAML") from None
    return [_number(value) for value in values]


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-3 as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
