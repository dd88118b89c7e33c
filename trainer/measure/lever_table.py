"""The table of levers on the screen."""

from typing import TYPE_CHECKING

from rich.table import Table

from trainer.measure.levers import Levers

if TYPE_CHECKING:
    from rich.console import Console

MIB = 2**20


def show_levers(levers: Levers, console: "Console") -> None:
    """Print every lever against the reference."""
    reference = levers.reference
    console.print(f"[bold]{levers.model}[/bold] on {levers.device}, {levers.threads} threads, torch {levers.versions['torch']}; {levers.tokens}")
    off = ", ".join(f"{name} {value}" for name, value in reference.fields.items())
    console.print(f"reference: {off}: peak {reference.peak_allocated_bytes / MIB:,.2f} MiB, {1e3 * reference.step_s:,.2f} ms a step")
    table = Table()
    for name in ("lever", "bytes saved", "MiB", "of the peak", "ms a step", "time", "loss apart, mean", "largest"):
        table.add_column(name, justify="left" if name == "lever" else "right", no_wrap=True)
    for row in levers.levers:
        saved = (f"{row.bytes_saved:,}", f"{row.bytes_saved / MIB:,.2f}", f"{row.bytes_saved / reference.peak_allocated_bytes:.1%}")
        apart = (f"{row.mean_loss_difference:.2e}", f"{row.largest_loss_difference:.2e}")
        table.add_row(row.lever, *saved, f"{1e3 * row.step_s:,.2f}", f"{row.time_cost:+.1%}", *apart)
    console.print(table)
    console.print(
        f"bytes saved: of the measured peak; time: median over {levers.loss_steps} steps of each over the reference's next one; loss apart: nats per token, "
        f"absolute, over {levers.loss_steps} steps from the same weights on the same tokens; rounding alone may turn a choice of the router"
    )
    for name, reason in levers.left_out.items():
        console.print(f"left out: {name}: {reason}")
