"""Read specifications from a preset's name or a path; write files whole or not at all."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from configuration.errors import ConfigurationError, unknown
from configuration.overrides import assign
from configuration.spec import SpecT, validated


@dataclass(frozen=True)
class PresetFolder(Generic[SpecT]):
    """The presets of one kind: YAML files in ``folder``, each a ``spec``; ``kind`` is the option's name ("model")."""

    kind: str
    spec: type[SpecT]
    folder: Path

    def names(self) -> list[str]:
        """Names of all presets, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.yaml"))

    def path(self, name_or_path: str) -> Path:
        """Path of a preset or of the user's file. Raises ConfigurationError when there is neither."""
        preset = self.folder / f"{name_or_path}.yaml"
        if preset.is_file() and preset.parent == self.folder:
            return preset
        path = Path(name_or_path)
        if path.is_file():
            return path
        if path.suffix or os.sep in name_or_path:
            raise ConfigurationError(f"{self.kind}: file {name_or_path!r} does not exist (presets: {', '.join(self.names())})")
        raise unknown(self.kind, name_or_path, self.names())

    def data(self, name_or_path: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The file's plain content with ``overrides`` (dotted field to value) put in; not yet checked."""
        data = read_yaml(self.path(name_or_path))
        for field, value in (overrides or {}).items():
            assign(data, field, value, f"--set {self.kind}.{field}")
        return data

    def load(self, name_or_path: str, overrides: Mapping[str, Any] | None = None) -> SpecT:
        """Read and check a preset or file. Raises ConfigurationError in one line."""
        source = str(self.path(name_or_path)) if Path(name_or_path).is_file() else f"{self.kind} {name_or_path}"
        return validated(self.spec, self.data(name_or_path, overrides), source)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises ConfigurationError when it is not one."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected a mapping of fields, got {type(content).__name__}")
    return content


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON object. Raises ConfigurationError naming ``kind`` when the file is absent, cut off or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{kind}: file {str(path)!r} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{kind}: {path} is not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{kind}: {path} does not hold a JSON object")
    return content


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` beside ``path`` and move it there, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
