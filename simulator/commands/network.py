"""The network's part of a step on the terminal."""

from typing import TYPE_CHECKING

from simulator.network_explanation import Change, GroupUse, NetworkExplanation
from simulator.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from rich.console import Console

FAILURES_SHOWN = 12


def show(console: "Console", found: NetworkExplanation) -> None:
    """Groups and their tiers, the step on other fabrics, the worst failures."""
    from rich.table import Table

    console.print(
        f"{found.model} on {found.fabric}: {found.bottleneck}; {show_seconds(found.step_s)} a step, {show_seconds(found.exposed_s)} of it "
        f"({found.exposed_s / found.step_s:.1%}) exposed communication"
    )
    groups = Table("group", "ranks", "layout", "collectives", "bytes a rank sends", "tiers it uses (busiest link)", "time", "latency", "exposed", "of the step")
    for use in found.groups:
        groups.add_row(*group_cells(use))
    console.print(groups)
    console.print("A link leads up to the tier that is named; 100 % is the link that sets the transfer time of the group's largest collective.")
    changes = Table("change", "step", "times", "exposed")
    for change in found.what_if:
        changes.add_row(*_cells(change))
    console.print(changes)
    if found.failures is not None:
        _failures(console, found.failures)
    for note in found.notes:
        console.print(note, soft_wrap=True)


def group_cells(use: GroupUse) -> tuple[str, ...]:
    """One row of the table of groups."""
    return (
        f"{use.group} ({use.groups} at once)",
        str(use.ranks),
        use.layout,
        ", ".join(use.collectives),
        show_bytes(use.bytes_per_step),
        ", ".join(f"{tier} {share:.0%}" for tier, share in use.tiers.items()),
        show_seconds(use.time_s),
        show_seconds(use.latency_s),
        show_seconds(use.exposed_s),
        f"{use.exposed_share:.1%}",
    )


def _cells(change: Change) -> tuple[str, ...]:
    if change.step_s is None or change.exposed_s is None:
        return change.name, "ranks are cut off", "", ""
    return change.name, show_seconds(change.step_s), f"{change.times:.3f}", show_seconds(change.exposed_s)


def _failures(console: "Console", failures: list[Change]) -> None:
    from rich.table import Table

    if not failures:
        console.print("No single failure leaves all ranks connected: there is one switch only, or none.")
        return
    table = Table("down", "step", "times the healthy step", "exposed")
    for failure in failures[:FAILURES_SHOWN]:
        table.add_row(*_cells(failure))
    console.print(table)
    worst = next((failure for failure in failures if failure.step_s is not None), failures[0])
    console.print(f"Worst single failure of {len(failures)} tried: {failures[0].name if failures[0].step_s is None else worst.name}.")
