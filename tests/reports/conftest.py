"""Real reports to draw: one prediction, and one measurement of the same step."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.question import ask

SMALL = {"plan": {"micro_batch": 2}}


@pytest.fixture(scope="session")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-moe on the 16 endpoints of spine-leaf."""
    path = tmp_path_factory.mktemp("predicted") / "p.json"
    path.write_text(ask("tiny-moe", "spine-leaf").answer().model_dump_json())
    return path


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-moe on one device, as ``measured`` runs it, which has no work space for matrix products."""
    path = tmp_path_factory.mktemp("alone") / "p.json"
    settings = {"plan": {**SMALL["plan"], "precision": "fp32"}, "device": {"matrix_workspace_bytes": None}}
    path.write_text(ask("tiny-moe", "single-node", gpus=1, settings=settings).answer().model_dump_json())
    return path


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same step, really run."""
    pytest.importorskip("torch", reason="a measurement needs PyTorch")
    path = tmp_path_factory.mktemp("measured") / "m.json"
    command = [sys.executable, "-m", "trainer", "measure", "--model", "tiny-moe", "--set", "plan.micro_batch=2", "--repeats", "1", "--threads", "1"]
    subprocess.run([*command, "--device", "cpu", "-o", str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """A headless browser, or a skip."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    pytest.skip("no Chromium on this machine")
