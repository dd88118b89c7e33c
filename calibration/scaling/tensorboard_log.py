"""A row of the run table from the event files that TensorBoard writers leave (PyTorch's SummaryWriter, Lightning, the Trainer of Hugging Face).

The files say nothing of the model: parameters come from the user. Reading them takes the package ``tensorboard``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configuration.errors import ConfigurationError, unknown
from configuration.spec import validated
from simulator.records.run_table import RunRow


def row_of(path: Path, values: Mapping[str, Any], loss_tag: str, tokens_per_step: float | None = None, tokens_tag: str | None = None) -> RunRow:
    """The last value of ``loss_tag`` (nats per token) as a row; ``values`` are the fields that the log lacks (run, parameters, experts).

    Tokens are the last value of ``tokens_tag`` up to the same step, or ``tokens_per_step`` times the step. Raises ConfigurationError in one line.
    """
    scalars = _scalars(path)
    if loss_tag not in scalars:
        raise unknown("--loss-tag", loss_tag, sorted(scalars))
    step, loss = scalars[loss_tag][-1]
    if tokens_tag is None:
        if tokens_per_step is None:
            raise ConfigurationError("--tensorboard: tokens are not known: give --tokens-per-step or --tokens-tag")
        tokens = step * tokens_per_step
    else:
        if tokens_tag not in scalars:
            raise unknown("--tokens-tag", tokens_tag, sorted(scalars))
        counted = [value for at, value in scalars[tokens_tag] if at <= step]
        if not counted:
            raise ConfigurationError(f"{path}: {tokens_tag} has no value up to step {step}, the last of {loss_tag}")
        tokens = counted[-1]
    return validated(RunRow, {**values, "tokens": tokens, "validation_loss_nats_per_token": loss}, str(path))


def _scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar by its tag, in the order of the steps."""
    if not path.exists():
        raise ConfigurationError(f"--tensorboard: {str(path)!r} does not exist")
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise ConfigurationError("--tensorboard: needs the package tensorboard (pip install tensorboard)") from None
    log = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    log.Reload()
    tags = log.Tags()
    found = {tag: [(event.step, float(event.value)) for event in log.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["tensors"]:
        events = [(event.step, event.tensor_proto) for event in log.Tensors(tag)]
        if all(len(proto.float_val) == 1 for _, proto in events):
            found[tag] = [(step, float(proto.float_val[0])) for step, proto in events]
    if not found:
        raise ConfigurationError(f"--tensorboard: {path} holds no scalars of event files")
    return {tag: sorted(values, key=lambda pair: pair[0]) for tag, values in found.items()}
