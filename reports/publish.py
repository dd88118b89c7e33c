"""Writes a page and tells on stdout what it says and where it lies."""

from pathlib import Path
from typing import TYPE_CHECKING

from configuration.command import emit
from configuration.errors import ConfigurationError
from reports.page import Page, document, render, write

if TYPE_CHECKING:
    from rich.console import Console


def publish(page: Page, output: Path | None, *, as_json: bool) -> None:
    """Write ``page`` into ``output`` (default ``reports-out/<name>``). Raises ConfigurationError when that is no folder that can be written."""
    folder = output or Path("reports-out") / page.name
    html = render(page)
    try:
        files = write(page, html, folder)
    except OSError as error:
        raise ConfigurationError(f"--output {folder}: not writable: {error.strerror}") from None

    def show(console: "Console") -> None:
        console.print(f"[bold]{page.title}[/bold]: {page.subject}", soft_wrap=True)
        for verdict in page.verdicts:
            console.print(f"- {verdict}", soft_wrap=True, markup=False)
        console.print(f"{files[0]} and {len(files) - 1} figures", markup=False)

    emit(document(page, files), as_json=as_json, output=None, show=show)
