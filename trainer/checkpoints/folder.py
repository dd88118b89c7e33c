"""What a checkpoint folder holds, and how one is found."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from configuration.errors import ConfigurationError
from configuration.files import read_json
from trainer.data.tokenizer import Tokenizer, load_tokenizer
from trainer.loop.experiment import Experiment, experiment_from_dict

RUNS = Path("runs")
"""Runs lie here, under the working directory."""

PREFIX = "step-"
MODEL_FILE, OPTIMIZER_FILE, RANDOM_FILE = "model.safetensors", "optimizer.safetensors", "random.safetensors"
STATE_FILE, TOKENIZER_FILE = "checkpoint.json", "tokenizer.json"
FILES = (MODEL_FILE, OPTIMIZER_FILE, RANDOM_FILE, STATE_FILE, TOKENIZER_FILE)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: weights, optimizer state, random states, tokenizer, and in ``checkpoint.json`` step and experiment."""

    folder: Path
    step: int
    """Optimizer steps done."""
    data_key: str
    """Key of the tokens trained on (``TokenFacts.key``)."""
    experiment: Experiment

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run."""
        return load_tokenizer(self.folder / TOKENIZER_FILE)


def checkpoint_name(step: int) -> str:
    """Folder name; names sort like steps."""
    return f"{PREFIX}{step:08d}"


def checkpoints_in(run: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first. A folder being written has another name and is not among them."""
    return sorted(folder for folder in (run / "checkpoints").glob(f"{PREFIX}*") if folder.is_dir())


def find_checkpoint(where: str | None) -> Checkpoint:
    """The checkpoint that ``where`` names: a checkpoint folder, a run folder or a run's name (its newest), by default the newest of all runs.

    Raises ConfigurationError when there is none or it is not whole.
    """
    if where is None:
        found = [newest[-1] for run in RUNS.glob("**/checkpoints") if (newest := checkpoints_in(run.parent))]
        if not found:
            raise ConfigurationError(f"--checkpoint: there is none under {RUNS}/ (train one with 'python -m trainer pretrain')")
        return open_checkpoint(max(found, key=lambda folder: (folder.stat().st_mtime_ns, folder.name)))
    path = next((path for path in (Path(where), RUNS / where) if path.is_dir()), None)
    if path is None:
        raise ConfigurationError(f"--checkpoint: {where!r} is neither a folder nor a run under {RUNS}/")
    if path.name.startswith(PREFIX):
        return open_checkpoint(path)
    if not checkpoints_in(path):
        raise ConfigurationError(f"--checkpoint: {path} holds no checkpoint")
    return open_checkpoint(checkpoints_in(path)[-1])


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read what a checkpoint says about itself. Raises ConfigurationError when a file is missing or not readable."""
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise ConfigurationError(f"checkpoint {folder}: {absent[0]} is missing{_older(folder)}")
    source = folder / STATE_FILE
    content = read_json(source, "checkpoint")
    step, data_key, experiment = content.get("step"), content.get("data_key"), content.get("experiment")
    if not isinstance(step, int) or not isinstance(data_key, str) or not isinstance(experiment, dict):
        raise ConfigurationError(f"{source}: needs the fields step, data_key and experiment")
    return Checkpoint(folder, step, data_key, experiment_from_dict(experiment, str(source)))


def damaged(folder: Path, file: str, reason: object) -> ConfigurationError:
    """The error for a file of a checkpoint that is cut off or does not belong to it."""
    return ConfigurationError(f"checkpoint {folder}: {file} is damaged or cut off ({shorten(str(reason), 200)}){_older(folder)}")


def remove_old(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints of a run."""
    for folder in checkpoints_in(run)[:-keep]:
        # Renamed first: a kill while removing leaves nothing that looks like a checkpoint.
        leaving = folder.with_name(f".removed-{folder.name}")
        folder.rename(leaving)
        shutil.rmtree(leaving)


def _older(folder: Path) -> str:
    older = [other.name for other in checkpoints_in(folder.parent.parent) if other.name < folder.name]
    return f"; an older one is {folder.parent / older[-1]}" if older else ""
