"""``sweep``: one prediction for every point of a grid over any fields."""

from typing import Any

from configuration.command import emit, stderr
from configuration.errors import ConfigurationError
from configuration.overrides import grid_points, parse_grid, split_by_kind
from simulator.commands import options
from simulator.question import KINDS, ask
from simulator.units import show_bytes, show_seconds


def sweep(
    model: options.Model,
    fabric: options.Fabric,
    settings: options.Settings,
    plan: options.PlanName = None,
    device: options.Device = None,
    gpus: options.Gpus = None,
    load: options.Load = None,
    fail: options.Fail = [],  # noqa: B006
    slow: options.Slow = [],  # noqa: B006
    json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Predict over a grid: every --set field takes a comma list.

    Example: python -m simulator sweep --model olmoe-1b-7b --fabric spine-leaf --set fabric.oversubscription=1,2,4,8
    """
    points = grid_points(parse_grid(settings, KINDS))
    rows: list[dict[str, Any]] = []
    for point in points:
        try:
            report = ask(model, fabric, plan, device, gpus, split_by_kind(point), fail=fail, slow=slow, load=load).answer()
        except ConfigurationError as error:
            rows.append({**point, "error": str(error)})
            continue
        time, rate = report.time, report.throughput
        rows.append(
            point
            | {
                "step_s": time.step_s,
                "tokens_per_s": rate.tokens_per_s,
                "mfu": rate.mfu,
                "peak_allocated_bytes": report.memory.peak_allocated_bytes,
                "exposed_communication_s": time.exposed_communication_s,
                "bottleneck": report.bottleneck,
                "bottleneck_link": report.bottleneck_link,
                "notes": report.provenance.notes,
            }
        )
    if all("error" in row for row in rows):
        raise ConfigurationError(rows[0]["error"])
    for row in rows:
        if "error" in row:
            stderr().print(f"not possible: {', '.join(f'{field} = {row[field]}' for field in points[0])}: {row['error']}", style="yellow")
    document = {"schema_version": 1, "model": model, "fabric": fabric, "rows": rows}
    emit(
        document,
        as_json=json,
        output=output,
        show=lambda console: _show(console, rows, list(points[0])),
    )


def _show(console: Any, rows: list[dict[str, Any]], fields: list[str]) -> None:
    from rich.table import Table

    table = Table(*fields, "step", "tokens/s", "MFU", "peak memory", "exposed communication", "held back by", "hottest link")
    for row in rows:
        if "error" in row:
            continue
        table.add_row(
            *(str(row[field]) for field in fields),
            show_seconds(row["step_s"]),
            f"{row['tokens_per_s']:,.0f}",
            "" if row["mfu"] is None else f"{row['mfu']:.2%}",
            show_bytes(row["peak_allocated_bytes"]),
            f"{show_seconds(row['exposed_communication_s'])} ({row['exposed_communication_s'] / row['step_s']:.1%})",
            row["bottleneck"],
            row["bottleneck_link"] or "",
        )
    console.print(table)
    for note in dict.fromkeys(note for row in rows for note in row.get("notes", [])):
        console.print(note, soft_wrap=True)
