"""Plain-text tables, for commands that answer at once: importing rich takes as long as a prediction."""

from collections.abc import Collection, Sequence

RULE: tuple[str, ...] = ()
"""A row that is a line."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Columns as wide as their widest cell, those with an index in ``right`` flush right; a row without cells is a rule."""
    filled = [row for row in (headers, *rows) if row]
    widths = [max(len(cell) for cell in column) for column in zip(*filled, strict=True)]
    rule = "  ".join("─" * width for width in widths)
    lines = [_line(row, widths, right) if row else rule for row in rows]
    return "\n".join([_line(headers, widths, right), rule, *lines])


def _line(cells: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    return "  ".join(cell.rjust(width) if index in right else cell.ljust(width) for index, (cell, width) in enumerate(zip(cells, widths, strict=True))).rstrip()
