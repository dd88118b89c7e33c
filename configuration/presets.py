"""What ``list`` and ``show`` print about presets."""

from collections.abc import Mapping
from typing import Any

from configuration.errors import unknown
from configuration.files import PresetFolder

Folders = Mapping[str, PresetFolder[Any]]
"""Kind of specification ("model") to its presets."""


def preset_text(name: str, folders: Folders) -> str:
    """YAML of the preset ``name``, of whatever kind. Raises ConfigurationError listing all names."""
    for folder in folders.values():
        if name in folder.names():
            return folder.path(name).read_text(encoding="utf-8")
    raise unknown("show", name, [preset for folder in folders.values() for preset in folder.names()])


def schema(kind: str, folders: Folders) -> dict[str, Any]:
    """JSON schema of a kind of specification, for editors. Raises ConfigurationError listing the kinds."""
    if kind not in folders:
        raise unknown("show --schema", kind, folders)
    found: dict[str, Any] = folders[kind].spec.model_json_schema()
    return found
