"""Specifications: frozen pydantic models that refuse unknown keys, and their errors as one line."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from configuration.errors import ConfigurationError, did_you_mean

SpecT = TypeVar("SpecT", bound="Spec")


class Spec(BaseModel):
    """Base of everything a user writes in YAML: frozen, without unknown keys, finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True)


def validated(spec: type[SpecT], data: Any, source: str) -> SpecT:
    """Check ``data`` (plain mappings, lists and scalars) against ``spec``.

    Raises ConfigurationError naming ``source``, the field and what is legal; only the first fault is told.
    """
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{source}: expected a mapping of fields, got {type(data).__name__}")
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {_first_fault(spec, error)}") from None


def _first_fault(spec: type[BaseModel], error: ValidationError) -> str:
    # An unknown key is told before the missing ones that it usually causes.
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path = [part for part in fault["loc"] if not str(part).startswith("function-")]
    field = ".".join(str(part) for part in path)
    if fault["type"] == "extra_forbidden":
        known = _fields_at(spec, path[:-1])
        name = str(path[-1])
        legal = f" (fields: {', '.join(sorted(known))})" if known else ""
        return f"{field}: unknown key{did_you_mean(name, known)}{legal}"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool) and not message.endswith("?") else ""
    return f"{field}: {message}{shown}" if field else message


def _fields_at(spec: type[BaseModel], path: list[int | str]) -> set[str]:
    """Names of the fields legal at ``path``; tags of unions appear in pydantic's paths as parts of their own."""
    candidates: list[type[BaseModel]] = [spec]
    for part in path:
        found: list[type[BaseModel]] = []
        for candidate in candidates:
            field = candidate.model_fields.get(str(part))
            if field is not None:
                found += _models_in(field.annotation)
        tagged = [c for c in candidates if _tag(c) == str(part)]
        candidates = found or tagged or candidates
    return {alias.alias or name for model in candidates for name, alias in model.model_fields.items()}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _tag(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    return str(kind.default) if kind is not None else None
