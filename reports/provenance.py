"""What a page was made from: input files with their digests, versions, and the command."""

import hashlib
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from simulator.records.step_report import Provenance


def of_page(inputs: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    """The command of this page, its day, the versions that drew it and the files that it read."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("moe-ledger", "numpy", "matplotlib"))
    command = shlex.join(["python", "-m", "reports", *sys.argv[1:]])
    rows = [("Command", command), ("Made on", f"{datetime.now(UTC):%Y-%m-%d}"), ("Versions", f"Python {platform.python_version()}, {versions}")]
    return tuple(rows) + tuple((f"Input {path}", f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}") for path in inputs)


def of_report(label: str, source: Provenance) -> tuple[tuple[str, str], ...]:
    """What made a StepReport, without the fields that it leaves empty."""
    fields = {
        "made by": source.tool,
        "command": source.command,
        "device": source.device,
        "machine": source.machine,
        "threads": "" if source.threads is None else str(source.threads),
        "versions": ", ".join(f"{name} {number}" for name, number in source.versions.items()),
        "memory from": source.memory_source,
        "time from": source.time_source,
    }
    told = "; ".join(f"{name} {value}" for name, value in fields.items() if value)
    return ((label, told), *((f"{label}: note", note) for note in source.notes))
