"""The script that measures everything on one kind of GPU, tried out without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "calibration" / "measurements" / "gpu.sh"


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DEVICE": "cpu", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


def test_an_unknown_part_is_told_with_the_legal_ones(tmp_path: Path) -> None:
    done = script(str(tmp_path), "kernel")
    assert done.returncode == 2
    assert done.stderr == "error: part 'kernel' (legal: where, training, losses, measure, kernels, device, tests, two-gpus)\n"


@pytest.mark.slow
def test_parts_leave_their_documents_in_the_folder(tmp_path: Path) -> None:
    done = script(str(tmp_path), "where", "kernels", "measure")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "kernels.json").read_text())["suite"] == "kernels"
    assert json.loads((tmp_path / "measure-small-moe.json").read_text())["kind"] == "measured"
    assert {"where.txt", "roofline.png", "measure-small-moe-trace.json.gz"} <= {file.name for file in tmp_path.iterdir()}
