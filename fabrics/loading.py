"""From a preset's name or a file to a fabric."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configuration.errors import ConfigurationError, unknown
from configuration.files import PresetFolder
from configuration.overrides import assign
from configuration.spec import validated
from fabrics.graph import Fabric
from fabrics.spec import FabricSpec, LinkProfile
from fabrics.topologies import TOPOLOGIES, explicit

FABRICS = PresetFolder("fabric", FabricSpec, Path(__file__).parent / "presets")
LINK_PROFILES = PresetFolder("link profile", LinkProfile, Path(__file__).parent / "link_profiles")


def load_spec(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> FabricSpec:
    """Read and check a fabric file; ``overrides`` are dotted fields ("oversubscription") to values. Raises ConfigurationError."""
    overrides = dict(overrides or {})
    inside_profile = {field: overrides.pop(field) for field in list(overrides) if field.startswith("link_profile.")}
    path = FABRICS.path(name_or_path)
    source = str(path) if Path(name_or_path).is_file() else f"fabric {name_or_path}"
    if path.suffix == ".graphml":
        data: dict[str, Any] = {"kind": "explicit", "graphml": path.name}
        for field, value in overrides.items():
            assign(data, field, value, f"--set fabric.{field}")
    else:
        data = FABRICS.data(name_or_path, overrides)
    explicit.relative_to(data, path)
    data.setdefault("name", path.stem)
    profile = data.setdefault("link_profile", "ideal")
    if isinstance(profile, str):
        changes = {field.removeprefix("link_profile."): value for field, value in inside_profile.items()}
        data["link_profile"] = LINK_PROFILES.load(_beside(profile, name_or_path), changes)
    elif inside_profile:
        raise ConfigurationError(f"{source}: link_profile is written out in the file: change it there or name a profile")
    return validated(spec_class(data, source), data, source)


def spec_class(data: Mapping[str, Any], source: str) -> type[FabricSpec]:
    """The specification class that the data's ``kind`` names."""
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in TOPOLOGIES:
        raise unknown(f"{source}: kind", str(kind), TOPOLOGIES)
    return TOPOLOGIES[kind].spec


def load_fabric(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Fabric:
    """Read a fabric file and build its graph. Raises ConfigurationError in one line."""
    return build(load_spec(name_or_path, overrides))


def build(spec: FabricSpec) -> Fabric:
    """The graph of a checked specification. Raises ConfigurationError when it is no network."""
    return TOPOLOGIES[spec.kind].build(spec)


def _beside(profile: str, fabric: str) -> str:
    """A profile's path in a fabric file is relative to that file."""
    near = Path(fabric).parent / profile
    return str(near) if Path(fabric).is_file() and near.is_file() else profile
