"""Measure every shape of a list with ``python -m trainer measure``, fitted and held-out shapes in turn.

``python calibration/measurements/measure.py calibration/measurements/cpu-shapes.yaml OUT_FOLDER [--repeats 20] [--threads 1]``

Reports that are there already are kept, so an interrupted run is taken up again. Then every shape beside which the yardstick (a
matrix product between the steps) ran slower than ``--quiet`` times its best rate was disturbed by other work and is measured
again, the shortest first, up to ``--passes`` times; of two reports of one shape the one with the faster yardstick stays. Nothing else is looked at.
"""

import argparse
import json
import shlex
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

from configuration.files import read_yaml


def main() -> None:
    """Run the measurements one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--quiet", type=float, default=0.85)
    given = parser.parse_args()
    shapes = read_yaml(given.shapes)
    pairs = zip_longest(shapes["fit"].items(), shapes["held_out"].items())
    wanted = {given.folder / role / f"{shape[0]}.json": shape[1] for pair in pairs for role, shape in zip(("fit", "held-out"), pair, strict=True) if shape}
    for output, settings in wanted.items():
        if not output.exists():
            measure(shapes["model"], settings, output, given)
    for _ in range(given.passes):
        best = max(map(yardstick, wanted))
        disturbed = [output for output in wanted if yardstick(output) < given.quiet * best]
        for output in sorted(disturbed, key=step_s):
            again = output.with_suffix(".again")
            measure(shapes["model"], wanted[output], again, given)
            if yardstick(again) > yardstick(output):
                again.replace(output)
            again.unlink(missing_ok=True)


def measure(model: str, settings: list[str], output: Path, given: argparse.Namespace) -> None:
    """Run one measurement."""
    options = [option for setting in settings for option in ("--set", setting)]
    command = ["-m", "trainer", "measure", "--model", model, *options, "--device", "cpu"]
    command += ["--repeats", str(given.repeats), "--threads", str(given.threads), "-o", output.as_posix()]
    print(f"python {shlex.join(command)}", file=sys.stderr)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def yardstick(report: Path) -> float:
    """FLOP/s of the reference product beside a measurement."""
    return float(content(report)["provenance"]["yardstick_flops_per_s"])


def step_s(report: Path) -> float:
    """Seconds of the measured step."""
    return float(content(report)["time"]["step_s"])


def content(report: Path) -> dict[str, Any]:
    """The report as plain data."""
    return json.loads(report.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
