"""Benchmarks on the screen."""

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from trainer.bench.plans_suite import CLOCKS
from trainer.bench.request import Answer

if TYPE_CHECKING:
    from rich.console import Console


def show_answer(answer: Answer, console: "Console") -> None:
    """Print the table of kernels, or a summary of a suite."""
    provenance = answer.document["provenance"]
    console.print(f"{provenance['device']} ({provenance['machine']}), {provenance['dtype']}, torch {provenance['versions']['torch']}")
    if answer.roofline is None:
        _suite(answer.document, console)
        return
    console.print(f"roofline, measured: {answer.roofline.flops_per_s:.4g} FLOP/s, {answer.roofline.bytes_per_s:.4g} bytes/s")
    table = Table("operation", "kernel", "tokens", "forward", "backward", "FLOP/s", "bytes/s", "of roofline", "error", "gradient error")
    for row in answer.rows:
        if row.forward is None:
            table.add_row(row.operation, row.kernel, f"{row.shape.tokens:,}", f"[dim]{escape(row.note)}[/dim]")
            continue
        least_s = answer.roofline.least_s(row.forward_flops, row.forward_bytes)
        table.add_row(
            row.operation, row.kernel, f"{row.shape.tokens:,}", f"{row.forward.median_s * 1e6:,.1f} µs",
            "" if row.backward is None else f"{row.backward.median_s * 1e6:,.1f} µs",
            f"{row.forward_flops / row.forward.median_s:.3g}" if row.forward_flops else "", f"{row.forward_bytes / row.forward.median_s:.3g}",
            f"{least_s / row.forward.median_s:.0%}", _error(row.forward_error), _error(row.gradient_error),
        )  # fmt: skip
    console.print(table)
    console.print("[dim]rates, share and error are of the forward pass; bytes are the least that must move; errors are relative norms against float64[/dim]")
    if by_host := _by_host(answer):
        console.print(f"[dim]issued by the host, whose time it may be, for lack of a CUDA graph: {escape(', '.join(by_host))}[/dim]")


def _by_host(answer: Answer) -> list[str]:
    """Kernels that ran on CUDA without a graph."""
    if "devices" not in answer.document["provenance"]:
        return []
    return list(dict.fromkeys(f"{row.operation} {row.kernel}" for row in answer.rows if row.forward is not None and row.forward.issued == "host"))


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _suite(document: dict[str, Any], console: "Console") -> None:
    if document["suite"] in ("losses", "plans"):
        (_losses if document["suite"] == "losses" else _plans)(document, console)
        return
    if document["suite"] == "training":
        table = Table("shape", "contender", "tokens/s", "model FLOP/s", "peak, GB", "busiest expert over mean")
        for row in document["rows"]:
            peak = row.get("peak_allocated_bytes")
            table.add_row(
                row["shape"],
                row["contender"],
                f"{row['tokens_per_s']:,.0f}",
                f"{row['model_flops_per_s']:.4g}",
                "" if peak is None else f"{peak / 1e9:.2f}",
                f"{max(loads):.2f}" if (loads := row["busiest_over_mean_by_layer"]) else "",
            )
        console.print(table)
        return
    table = Table("kind", "rows", "quickest", "slowest", "outliers", "issued by")
    for kind in dict.fromkeys(row["kind"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["kind"] == kind]
        times_us = [row["us"] for row in rows]
        issued = ", ".join(sorted({row["issued"] for row in rows}))
        table.add_row(kind, str(len(rows)), f"{min(times_us):,.1f} µs", f"{max(times_us):,.1f} µs", str(sum(len(row["outliers"]) for row in rows)), issued)
    console.print(table)
    console.print(f"{len(document['collectives'])} rows of collectives")


def _plans(document: dict[str, Any], console: "Console") -> None:
    table = Table("plan", "clock", "step", "of the product's rate", "quartiles")
    for row in document["rows"]:
        for clock in (clock for clock in CLOCKS if clock in row):
            low, high = row[clock]["quartiles"]
            share = f"{row[clock]['share_of_product']:.3f}"
            table.add_row(row["plan"], clock.replace("_", " "), f"{row[clock]['step_s'] * 1e3:,.1f} ms", share, f"{low:.3f} to {high:.3f}")
    console.print(table)


def _losses(document: dict[str, Any], console: "Console") -> None:
    table = Table("variant", "mean of the last losses", "above the reference", "largest of a seed", "deviation of the reference over seeds", "within it")
    for row in document["comparison"]:
        numbers = (f"{row['mean_of_last']:.4f}", f"{row['difference']:+.4f}", f"{row['largest']:+.4f}", f"{row['spread']:.4f}")
        table.add_row(row["variant"], *numbers, "yes" if row["within_spread"] else "no")
    console.print(table)
    console.print(f"[dim]nats a token; the language itself has {document['entropy_nats_per_token']:.4f}[/dim]")
