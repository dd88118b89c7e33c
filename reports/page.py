"""A page as plain data, and how it becomes one offline HTML file with PNG figures beside it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configuration.files import write_atomically

TEMPLATES = Path(__file__).resolve().parent / "templates"
NUMBER = re.compile(r"^[+\-−]?[\d,.]+(e[+\-]?\d+)?( ?(%|×|B|[kMGTP]i?B|s|ms|µs|[kMGTP]|[kMGT]?B/s))?(:1)?( \([\d.]+%\))?$")


@dataclass(frozen=True)
class Picture:
    """A figure. ``name`` is the stem of its PNG file; ``caption`` says what it shows."""

    name: str
    caption: str
    svg: str
    png: bytes


@dataclass(frozen=True)
class Table:
    """Rows of finished text under ``headers``; columns of numbers are set flush right. A ``folded`` one is its caption until it is opened."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Per column: whether every filled cell is a number, with its unit."""
        columns = zip(*self.rows, strict=True) if self.rows else [() for _ in self.headers]
        return tuple(all(cell in ("", "equal", "only here", "under 1%", "–") or NUMBER.match(cell) for cell in column) for column in columns)


@dataclass(frozen=True)
class Section:
    """A heading, what is to be said, and then pictures and tables in order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    items: tuple[Picture | Table, ...] = ()


@dataclass(frozen=True)
class Page:
    """One report. ``verdicts``: the answer in words, first thing on the page; ``provenance``: label and value; ``limits``: what it does not say."""

    name: str
    title: str
    subject: str
    verdicts: tuple[str, ...]
    sections: tuple[Section, ...]
    provenance: tuple[tuple[str, str], ...]
    limits: tuple[str, ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All figures in the order of the page."""
        return tuple(item for section in self.sections for item in section.items if isinstance(item, Picture))


def render(page: Page) -> str:
    """The whole page as HTML text, which needs no other file and no network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html.j2").render(page=page)


def write(page: Page, html: str, folder: Path) -> list[Path]:
    """Write ``html``, what ``render`` made of ``page``, and one PNG a figure into ``folder``, each whole or not at all; return their paths, the page first."""
    pictures = [folder / f"{picture.name}.png" for picture in page.pictures]
    for path, picture in zip(pictures, page.pictures, strict=True):
        write_atomically(path, picture.png)
    whole = folder / f"{page.name}.html"
    write_atomically(whole, html)
    return [whole, *pictures]


def document(page: Page, files: Sequence[Path]) -> dict[str, Any]:
    """What a command tells of a page it wrote."""
    return {"schema_version": 1, "report": page.name, "subject": page.subject, "verdicts": list(page.verdicts), "files": [str(path) for path in files]}
