"""``python compare.py FOLDER [FIGURE.png]``: steps on one and two GPUs as measured beside their predictions, and where their time goes.

Nothing here is fitted to the time of these steps: the device profile comes from kernels timed alone and the step of another model, the link profiles from
collectives timed alone; what hooks take of the host (``hooks.py``) is a part of one of the sharded steps.
"""

import json
import sys
from pathlib import Path
from typing import Any

from simulator.question import ask
from simulator.records.step_report import StepReport

ISSUED = {"implementation.compile": "none", "implementation.norm": "recompute", "implementation.launch": "eager"}
SHARDED = ISSUED | {"precision": "bf16-mixed"}
PLANS: dict[str, dict[str, Any]] = {
    "replayed": {}, "issued": {"implementation.launch": "eager"}, "eager": ISSUED, "mixed": SHARDED,
    "data-replayed": {"ep": 1}, "data-issued": {"ep": 1, "implementation.launch": "eager"}, "expert": ISSUED | {"ep": 2},
    "sharded": SHARDED | {"ep": 1, "zero_stage": 3},
}  # fmt: skip
"""What ``run.sh`` changes in the plan fast, by the second part of a file's name."""

ALONE = {"data-replayed": "one-replayed", "data-issued": "one-issued", "expert": "one-eager", "sharded": "one-mixed"}
"""The same kernels on one GPU."""

FABRICS = {"one": "two-h200", "nvlink": "two-h200", "shm": "two-h200-shm", "socket": "two-h200-socket"}
TRANSPORTS = ("nvlink", "shm", "socket")


def predicted(name: str, steps: dict[str, Any]) -> StepReport:
    """The simulator's step for a file of this name and content. Files that do not tell are from before heads were turned in one pass."""
    where, _, plan = name.partition("-")
    settings = {"routing": "uniform", "implementation.rope": steps.get("implementation", {"rope": "eager"})["rope"]} | PLANS[plan]
    return ask("moe-s1", FABRICS[where], "fast", gpus=1 if where == "one" else 2, settings={"plan": settings}).answer()


def main() -> None:
    """Print the table; draw the figure."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(Path(sys.argv[1]).glob("*.json"))}
    reports = {name: predicted(name, steps) for name, steps in found.items()}
    print(f"{'':22} {'measured':>10} {'predicted':>10} {'error':>7} {'speed-up':>9} {'exposed':>9} {'predicted':>10}")
    for name, steps in found.items():
        time, step_s = reports[name].time, steps["step_s"]
        alone = found.get(ALONE.get(name.partition("-")[2], ""))
        speed_up = f"{steps['tokens_per_s'] / alone['tokens_per_s']:9.2f}" if alone else " " * 9
        exposed = f"{steps['exposed_a_step_s'] * 1e3:6.1f} ms {time.exposed_communication_s * 1e3:7.1f} ms" if alone else ""
        print(f"{name:22} {step_s * 1e3:7.1f} ms {time.step_s * 1e3:7.1f} ms {time.step_s / step_s - 1:+7.1%} {speed_up} {exposed}")
    if len(sys.argv) > 2:
        draw(found, reports, Path(sys.argv[2]))


def draw(found: dict[str, Any], reports: dict[str, StepReport], file: Path) -> None:
    """One panel a plan; a measured and a predicted bar a transport, and a line where one GPU is that does half of the work."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plans = {"data-replayed": "data parallel, replayed", "expert": "expert parallel (ep 2)", "sharded": "fully sharded (ZeRO-3)"}
    figure, panels = pyplot.subplots(1, len(plans), figsize=(13, 4.2), sharey=True)
    for axes, (plan, title) in zip(panels, plans.items(), strict=True):
        for side, (label, colour) in enumerate((("measured", "#31688e"), ("predicted", "#9ecae1"))):
            x = [place + 0.4 * side - 0.2 for place in range(len(TRANSPORTS))]
            steps_ms = [(found[name]["step_s"], reports[name].time.step_s)[side] * 1e3 for name in (f"{transport}-{plan}" for transport in TRANSPORTS)]
            axes.bar(x, steps_ms, 0.36, color=colour, label=f"two GPUs, {label}")
            for place, step_ms in zip(x, steps_ms, strict=True):
                axes.text(place, step_ms * 1.04, f"{step_ms:,.0f}", ha="center", fontsize=8)
        axes.axhline(found[ALONE[plan]]["step_s"] * 1e3, color="black", linestyle="--", linewidth=1, label="one GPU with half of the batch, measured")
        axes.set(title=title, yscale="log", ylim=(30, 3000), xticks=range(len(TRANSPORTS)), xticklabels=["NVLink", "shared memory", "sockets"])
    panels[0].set_ylabel("ms a step")
    panels[0].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
