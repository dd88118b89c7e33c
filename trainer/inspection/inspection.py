"""Inspect a checkpoint: everything is computed and drawn before the first file is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configuration.command import to_json
from configuration.errors import ConfigurationError
from configuration.files import write_atomically
from trainer.checkpoints import Checkpoint
from trainer.data import Batches, TokenData, prepare
from trainer.inference import open_model
from trainer.inspection.attention import AttentionMaps, attention_maps
from trainer.inspection.expert_load import LayerLoad, expert_load
from trainer.inspection.figures import attention_figure, expert_load_figure, loss_by_position_figure
from trainer.inspection.held_out import read_held_out
from trainer.inspection.loss_by_position import LossByPosition, loss_by_position

if TYPE_CHECKING:
    from trainer.data import Tokenizer

DOCUMENT = "inspection.json"


@dataclass(frozen=True)
class Inspection:
    """What was found in one checkpoint."""

    checkpoint: Checkpoint
    text_source: str
    """Where the text of the attention maps comes from."""
    tokens: int
    """Validation tokens that were looked at."""
    of_tokens: int
    """Validation tokens that there are."""
    attention: AttentionMaps
    loads: tuple[LayerLoad, ...]
    loss: LossByPosition

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "schema_version": 1,
            "checkpoint": str(self.checkpoint.folder),
            "model": self.checkpoint.experiment.model.name,
            "step": self.checkpoint.step,
            "validation_tokens": self.tokens,
            "of_validation_tokens": self.of_tokens,
            "expert_load": [load.as_dict() for load in self.loads],
            "loss_by_position": self.loss.as_dict(),
            "attention": {"text_source": self.text_source} | self.attention.as_dict(),
        }


def inspect_checkpoint(checkpoint: Checkpoint, text: str | None, limit_tokens: int | None, log: Callable[[str], None]) -> Inspection:
    """Look at ``checkpoint``: attention over ``text`` (by default the beginning of the validation data), load and loss over validation data.

    ``limit_tokens`` bounds the validation tokens, rounded up to a window. Raises ConfigurationError in one line.
    """
    experiment = checkpoint.experiment
    ids = None if text is None else _ids(text, checkpoint.tokenizer(), begin_token=bool(experiment.data.begin_token))
    model = open_model(checkpoint)
    data = _same_data(checkpoint, log)
    batches = Batches(data.validation, experiment.plan.sequence, name="validation")
    held_out = read_held_out(model, batches, experiment.plan.micro_batch, limit_tokens)
    return Inspection(
        checkpoint=checkpoint,
        text_source="validation data" if ids is None else "--text",
        tokens=held_out.losses_NS.size,
        of_tokens=len(data.validation),
        attention=attention_maps(model, data.tokenizer, data.validation.tolist() if ids is None else ids),
        loads=expert_load(experiment.model, held_out),
        loss=loss_by_position(held_out),
    )


def _ids(text: str, tokenizer: "Tokenizer", *, begin_token: bool) -> Sequence[int]:
    if not text:
        raise ConfigurationError("--text: must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("--text: is no valid UTF-8 text") from None
    return tokenizer.encode(text, begin=begin_token)


def _same_data(checkpoint: Checkpoint, log: Callable[[str], None]) -> TokenData:
    data = prepare(checkpoint.experiment.data, checkpoint.experiment.model.vocabulary, log)
    if data.facts.key != checkpoint.data_key:
        raise ConfigurationError(f"checkpoint {checkpoint.folder}: the text or the tokenizer has changed since it was trained, so its validation data are gone")
    return data


def default_folder(checkpoint: Checkpoint) -> Path:
    """Where the files go when nobody says: ``inspection/STEP`` in the run's folder."""
    return checkpoint.folder.resolve().parent.parent / "inspection" / checkpoint.folder.name


def check_folder(folder: Path) -> None:
    """Raises ConfigurationError when ``folder`` cannot become a folder."""
    blocking = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if blocking is not None and not blocking.is_dir():
        raise ConfigurationError(f"--output: {blocking} is a file, a folder is needed")


def write_inspection(inspection: Inspection, folder: Path) -> list[Path]:
    """Write the document and the figures into ``folder``, each file whole or not at all; returns their paths."""
    layers = range(len(inspection.attention.weights_LHSS))
    digits = len(str(layers[-1]))
    files: dict[str, str | bytes] = {DOCUMENT: to_json(inspection.as_dict())}
    files |= {f"attention-layer-{layer:0{digits}d}.png": attention_figure(inspection.attention, layer) for layer in layers}
    if inspection.loads:
        files["expert-load.png"] = expert_load_figure(inspection.loads)
    files["loss-by-position.png"] = loss_by_position_figure(inspection.loss)
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]
