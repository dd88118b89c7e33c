"""Sections and the picture of the tiers on a terminal."""

from typing import TYPE_CHECKING

from fabrics.explain.explanation import Explanation
from fabrics.explain.sections import Rows
from fabrics.graph import Fabric
from fabrics.network import FloatArray

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SWITCHES_SHOWN, ACCELERATORS_SHOWN = 16, 32


def show(explanation: Explanation, console: "Console") -> None:
    """Print all sections and the picture of the tiers."""
    for section in explanation.sections:
        console.rule(f"[bold]{section.title}[/bold]", align="left")
        for i, paragraph in enumerate(section.paragraphs):
            console.print(paragraph, markup=False)
            if section.paired:
                _table(section.tables[i], console)
        if section.picture == "tiers":
            for line in picture(explanation.fabric, explanation.busy):
                console.print(line)
        if not section.paired:
            for table in section.tables:
                _table(table, console)


def _table(rows: Rows, console: "Console") -> None:
    from rich import box
    from rich.table import Table

    table = Table(*rows.headings, box=box.SIMPLE_HEAD)
    for row in rows.rows:
        table.add_row(*row)
    console.print(table)


def picture(fabric: Fabric, busy: FloatArray | None) -> list["Text"]:
    """The tiers from the top: behind each switch or accelerator one digit per link upwards (or sideways), its busier direction's load in tenths."""
    from rich.text import Text

    graph = fabric.graph
    load = dict(zip(fabric.links, busy.tolist(), strict=True)) if busy is not None else {}
    rows: dict[tuple[int, str], list[str]] = {}
    for name, data in graph.nodes(data=True):
        rows.setdefault((data["tier"], data["kind"]), []).append(name)
    lines: list[Text] = []
    for (tier, kind), names in sorted(rows.items(), reverse=True):
        line = Text(f"{kind:>12}  ")
        most = ACCELERATORS_SHOWN if kind == "accelerator" else SWITCHES_SHOWN
        for name in names[:most]:
            line.append(name, style="bold")
            others = [other for other in graph.successors(name) if load and (graph.nodes[other]["tier"] > tier or graph.nodes[other]["tier"] == tier > 0)]
            line.append(":" if others else "")
            for other in others:
                share = max(load[name, other], load.get((other, name), 0.0))
                line.append(f"{min(int(share * 10 + 1e-9), 9)}", style=_colour(share))
            line.append("  ")
        if len(names) > most:
            line.append(f"... {len(names) - most:,} more")
        lines.append(line)
    if load:
        lines.append(Text("              (digits: links upwards; 9 = busy for 90 to 100 % of the transfer of the all-to-all below)", style="dim"))
    return lines


def _colour(share: float) -> str:
    return "green" if share < 0.4 else "yellow" if share < 0.8 else "red"
