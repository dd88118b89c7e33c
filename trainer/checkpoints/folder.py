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

PREFIX, WRITING, REPLACED, REMOVED = "step-", ".writing-", ".replaced-", ".removed-"
SCHEMA_VERSION = 2
STATE_FILE, TOKENIZER_FILE = "checkpoint.json", "tokenizer.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: state as safetensors, a file for each rank that wrote, tokenizer, and in ``checkpoint.json`` step, experiment, files."""

    folder: Path
    step: int
    """Optimizer steps done."""
    data_key: str
    """Key of the tokens trained on (``TokenFacts.key``)."""
    experiment: Experiment

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run."""
        return load_tokenizer(self.folder / TOKENIZER_FILE, self.experiment.data)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies; names sort like steps."""
    return run / "checkpoints" / f"{PREFIX}{step:08d}"


def writing(final: Path) -> Path:
    """Where a checkpoint is written before it is whole."""
    return final.with_name(f"{WRITING}{final.name}")


def replaced(final: Path) -> Path:
    """Where a checkpoint waits while another of the same step takes its place."""
    return final.with_name(f"{REPLACED}{final.name}")


def checkpoints_in(run: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first. A folder being written has another name and is not among them."""
    # One that was moved aside counts where a kill kept its successor from taking the place.
    found = {folder.name.removeprefix(REPLACED): folder for pattern in (f"{REPLACED}{PREFIX}*", f"{PREFIX}*") for folder in (run / "checkpoints").glob(pattern)}
    return [folder for _, folder in sorted(found.items()) if folder.is_dir()]


def clear_unfinished(run: Path) -> None:
    """Put away what a killed save has left; one that it had moved aside comes back."""
    for aside in (run / "checkpoints").glob(f"{REPLACED}*"):
        final = aside.with_name(aside.name.removeprefix(REPLACED))
        if final.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(final)
    for pattern in (WRITING, REMOVED):
        for left in (run / "checkpoints").glob(f"{pattern}*"):
            shutil.rmtree(left)


def sizes_bytes(folder: Path) -> dict[str, int]:
    """Name and size of each file."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())}


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
    source = folder / STATE_FILE
    if not source.is_file():
        raise damaged(folder, f"{STATE_FILE} is missing")
    content = read_json(source, "checkpoint")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ConfigurationError(f"{source}: schema_version {content.get('schema_version')!r}: this version reads {SCHEMA_VERSION}")
    step, data_key, experiment, files = (content.get(name) for name in ("step", "data_key", "experiment", "files"))
    if not isinstance(step, int) or not isinstance(data_key, str) or not isinstance(experiment, dict) or not isinstance(files, dict):
        raise ConfigurationError(f"{source}: needs the fields step, data_key, experiment and files")
    there = sizes_bytes(folder)
    for name, size_bytes in files.items():
        if there.get(name) != size_bytes:
            raise damaged(folder, f"{name} {'is missing' if name not in there else f'has {there[name]:,} bytes instead of {size_bytes:,}'}")
    return Checkpoint(folder, step, data_key, experiment_from_dict(experiment, str(source)))


def damaged(folder: Path, reason: object) -> ConfigurationError:
    """The error for a checkpoint that is cut off or does not belong to the model."""
    return ConfigurationError(f"checkpoint {folder}: damaged, cut off or of another model: {shorten(str(reason), 200)}{_older(folder)}")


def remove_old(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints of a run."""
    for folder in checkpoints_in(run)[:-keep]:
        # Renamed first: a kill while removing leaves nothing that looks like a checkpoint.
        leaving = folder.with_name(f"{REMOVED}{folder.name}")
        folder.rename(leaving)
        shutil.rmtree(leaving)


def _older(folder: Path) -> str:
    older = [other.name for other in checkpoints_in(folder.parent.parent) if other.name < folder.name.removeprefix(REPLACED)]
    return f"; an older one is {folder.parent / older[-1]}" if older else ""
