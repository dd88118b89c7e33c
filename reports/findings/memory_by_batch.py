"""What holds the memory as the micro-batch grows: ``python -m reports.findings.memory_by_batch FOLDER [MEASURED.json ...]``.

Prints the table and writes ``memory_by_batch.png`` into FOLDER. Measured StepReports (``python -m trainer measure``) of the first model are drawn over
the prediction.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from configuration.files import write_atomically
from reports.drawing import SERIES, bytes_unit, picture
from reports.step.memory_at_peak import COLOURS
from reports.step.series import role_name
from simulator.comparison import load_report
from simulator.components import Role
from simulator.question import ask
from simulator.records.step_report import StepReport

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
RATIOS = {
    "tiny-moe, 1 rank, fp32": ("tiny-moe", "single-node", 1, {"precision": "fp32"}),
    "olmoe-1b-7b, 16 ranks, ep 16": ("olmoe-1b-7b", "spine-leaf", None, {}),
    "mixtral-8x7b, 16 ranks, ep 8": ("mixtral-8x7b", "spine-leaf", None, {}),
}


def predicted(name: str, batch: int) -> StepReport:
    """One prediction of ``RATIOS`` with another micro-batch."""
    model, fabric, gpus, plan = RATIOS[name]
    return ask(model, fabric, gpus=gpus, settings={"plan": {**plan, "micro_batch": batch}}).answer()


def draw(figure: Figure, reports: dict[str, list[StepReport]], measured: Sequence[StepReport]) -> None:
    """Left: bytes at the peak by category for the first model; right: activations over Adam's states for all."""
    left, right = figure.subplots(1, 2)
    _draw_bars(left, next(iter(reports.values())), measured)
    for (name, series), (colour, marker, line) in zip(reports.items(), SERIES, strict=False):
        tokens = [_batch(report) * report.plan["sequence"] for report in series]  # type: ignore[operator]
        right.plot(tokens, [ratio(report) for report in series], color=colour, marker=marker, linestyle=line, label=name)
    right.axhline(1, color="black", linewidth=1.2, linestyle=":")
    right.text(0.98, 1.08, "over this line activations lead", transform=right.get_yaxis_transform(), fontsize=9, ha="right")
    right.set_xscale("log", base=2)
    right.set_yscale("log", base=2)
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.tick_params(axis="x", labelsize=9)
    right.set_xlabel("tokens of a micro-batch and rank")
    right.set_ylabel("kept activations over Adam's states (ratio)")
    right.legend(frameon=False, fontsize=9)


def _draw_bars(axes: Axes, series: Sequence[StepReport], measured: Sequence[StepReport]) -> None:
    scale, unit = bytes_unit(max(report.memory.peak_allocated_bytes for report in series))
    names = [str(_batch(report)) for report in series]
    start = [0.0] * len(names)
    for role in Role:
        sizes = [report.memory.at_peak.get(role, 0) / scale for report in series]
        if max(sizes) * scale > 1e6:
            axes.bar(names, sizes, bottom=start, color=COLOURS[role], edgecolor="white", label=role_name(role))
        start = [low + size for low, size in zip(start, sizes, strict=True)]
    if measured:
        x = [str(_batch(report)) for report in measured]
        y = [report.memory.peak_allocated_bytes / scale for report in measured]
        axes.plot(x, y, color="black", marker="D", linestyle="none", label="measured peak")
    axes.set_xlabel(f"micro-batch (sequences of {series[0].plan['sequence']} tokens)")
    axes.set_ylabel(f"bytes allocated at the peak ({unit})")
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, fontsize=9)


def ratio(report: StepReport) -> float:
    """Activations kept for backward over Adam's states."""
    return report.memory.activations_bytes / report.memory.optimizer_bytes


def _batch(report: StepReport) -> int:
    return int(str(report.plan["micro_batch"]))


def _line(report: StepReport) -> str:
    return f"micro-batch {_batch(report)}: activations / Adam {ratio(report):.3f}, peak {report.memory.peak_allocated_bytes:,} B"


def main(folder: Path, files: Sequence[Path]) -> None:
    """Predict, print and draw."""
    measured = [load_report(path) for path in files]
    reports = {name: [predicted(name, batch) for batch in BATCHES] for name in RATIOS}
    for name, series in reports.items():
        print(name)
        for report in series:
            print(f"  {_line(report)}, in {report.memory.peak_at.phase} of {report.memory.peak_at.component}")
    for report in measured:
        print(f"measured: {_line(report)}")
    caption = "Bytes at the peak by category (left), and activations over Adam's states (right), against the micro-batch."
    write_atomically(folder / "memory_by_batch.png", picture("memory_by_batch", caption, partial(draw, reports=reports, measured=measured), 4.4).png)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
