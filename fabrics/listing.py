"""What there is: presets, link profiles, topologies, collectives; and their text."""

import json
from typing import TYPE_CHECKING, Any

from configuration.errors import unknown
from fabrics.collectives import COLLECTIVES
from fabrics.loading import FABRICS, LINK_PROFILES, load_fabric
from fabrics.topologies import TOPOLOGIES

if TYPE_CHECKING:
    from rich.console import Console


def document() -> dict[str, Any]:
    """Everything that can be named."""
    presets = []
    for name in FABRICS.names():
        spec = FABRICS.data(name)
        presets.append({"name": name, "kind": spec["kind"], "endpoints": load_fabric(name).size, "device": spec["device"], "about": spec.get("about", "")})
    return {
        "schema_version": 1,
        "fabrics": presets,
        "link_profiles": LINK_PROFILES.names(),
        "topologies": list(TOPOLOGIES),
        "collectives": {name: list(algorithms) for name, algorithms in COLLECTIVES.items()},
    }


def show(listed: dict[str, Any], console: "Console") -> None:
    """The tables of ``document``."""
    from rich import box
    from rich.table import Table

    table = Table("fabric", "kind", "endpoints", "device", "about", box=box.SIMPLE_HEAD)
    for preset in listed["fabrics"]:
        table.add_row(preset["name"], preset["kind"], f"{preset['endpoints']:,}", preset["device"], preset["about"])
    console.print(table)
    console.print(f"link profiles: {', '.join(listed['link_profiles'])}")
    console.print(f"topologies: {', '.join(listed['topologies'])}")
    for name, algorithms in listed["collectives"].items():
        console.print(f"{name}: {', '.join(algorithms)}")


def yaml_text(name: str) -> str:
    """The file of a fabric preset or a link profile. Raises ConfigurationError for neither."""
    for folder in (FABRICS, LINK_PROFILES):
        if name in folder.names():
            return folder.path(name).read_text(encoding="utf-8")
    raise unknown("show", name, [*FABRICS.names(), *LINK_PROFILES.names()])


def schema_text() -> str:
    """JSON schema of fabric files: one alternative per topology; a link profile may be named instead of written out."""
    from typing import Annotated, Union

    from pydantic import Field, TypeAdapter

    kinds: Any = Union[tuple(topology.spec for topology in TOPOLOGIES.values())]  # noqa: UP007
    schema = TypeAdapter[Any](Annotated[kinds, Field(discriminator="kind")]).json_schema()
    for model in schema["$defs"].values():
        profile = model.get("properties", {}).get("link_profile")
        if profile is not None:
            model["properties"]["link_profile"] = {"anyOf": [{"type": "string", "description": "name or path of a link profile"}, profile]}
            model["required"] = [field for field in model["required"] if field not in ("link_profile", "name")]
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fabric file", **schema}, indent=2) + "\n"
