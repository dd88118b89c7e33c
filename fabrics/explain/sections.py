"""The form of an explanation: titled sections of paragraphs and tables."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rows:
    """A table: headings and rows of text."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One answer. ``picture`` names a drawing that stands after the text ("tiers", "knee", "hashing"); ``paired``: each paragraph introduces one table."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Rows, ...] = ()
    picture: str = ""
    paired: bool = False
    data: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = asdict(self)
        plain["tables"] = [{"headings": list(table.headings), "rows": [list(row) for row in table.rows]} for table in self.tables]
        plain["paragraphs"] = list(self.paragraphs)
        return plain
