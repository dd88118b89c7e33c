"""A run's folder: its four specifications as YAML, what it ran on, its log and its checkpoints."""

import os
import platform
import shutil
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configuration.command import to_json
from configuration.errors import ConfigurationError
from configuration.files import read_json, read_yaml, write_atomically
from simulator.specs import Plan
from trainer.checkpoints.folder import RUNS
from trainer.loop.experiment import KINDS, Experiment, experiment_from_dict

RUN_FILE, LOG_FILE, RESULT_FILE = "run.json", "log.jsonl", "result.json"
LIBRARIES = ("moe-ledger", "torch", "numpy", "tokenizers", "safetensors")


def new_run(name: str) -> Path:
    """Where a run of this name will lie; nothing is made yet. Raises ConfigurationError when the name is taken or no name."""
    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigurationError(f"--name {name!r}: expected the name of one folder under {RUNS}/")
    check_free(RUNS / name)
    return RUNS / name


def find_run(where: str) -> Path:
    """The run folder that a path or a name under ``runs/`` means. Raises ConfigurationError when there is none."""
    for path in (Path(where), RUNS / where):
        if (path / RUN_FILE).is_file():
            return path
    known = sorted(file.parent.name for file in RUNS.glob(f"*/{RUN_FILE}"))
    raise ConfigurationError(f"--resume: {where!r} is no run (runs under {RUNS}/: {', '.join(known) or 'none'})")


def check_free(folder: Path) -> None:
    """Raise ConfigurationError when ``folder`` is there already."""
    if folder.exists():
        raise ConfigurationError(f"run folder {folder} exists already: take another name, or go on with --resume {folder.name}")


def create_run_folder(folder: Path, experiment: Experiment) -> None:
    """Make the folder, whole or not at all. Raises ConfigurationError when it is there already."""
    import yaml

    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for kind, content in experiment.as_dict().items():
            (temporary / f"{kind}.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        (temporary / RUN_FILE).write_text(to_json(_circumstances(experiment)), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run. Raises ConfigurationError when a file of it is missing or changed into something illegal."""
    content = {}
    for kind in KINDS:
        file = folder / f"{kind}.yaml"
        if not file.is_file():
            raise ConfigurationError(f"run {folder}: {file.name} is missing")
        content[kind] = read_yaml(file)
    return experiment_from_dict(content, str(folder))


def put_plan(folder: Path, plan: Plan) -> str:
    """Make ``plan`` the one of the run from now on; returns the fields that this changes, in words, empty when there are none."""
    import yaml

    before = read_experiment(folder).plan
    fields = [field for field in Plan.model_fields if getattr(plan, field) != getattr(before, field)]
    changed = [f"{field} {getattr(plan, field)} (before {getattr(before, field)})" for field in fields]
    if changed:
        write_atomically(folder / "plan.yaml", yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    return ", ".join(changed)


def threads_of(folder: Path) -> int:
    """Threads that a run was started with. Raises ConfigurationError when its ``run.json`` does not say."""
    threads = read_json(folder / RUN_FILE, "run").get("threads")
    if not isinstance(threads, int) or threads < 1:
        raise ConfigurationError(f"{folder / RUN_FILE}: threads: expected a positive number, got {threads!r}")
    return threads


def _circumstances(experiment: Experiment) -> dict[str, Any]:
    import torch

    device = experiment.training.device
    return {
        "schema_version": 1,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "threads": torch.get_num_threads(),
        "seed": experiment.training.seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }
