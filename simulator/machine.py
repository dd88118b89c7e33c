"""Which machine this is, in the words that profiles and reports are marked with."""

import os
import platform
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Processor, number of cores and system, such as ``AMD EPYC, 2 cores, Linux``; no name of the host."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"


def _processor() -> str:
    """The processor's name, as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return _darwin_processor()
    return platform.processor() or platform.machine()


def _darwin_processor() -> str:
    import subprocess

    try:
        told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False, timeout=5)
    except OSError:
        return platform.machine()
    return told.stdout.strip() or platform.machine()
