"""The records of a log drawn by TensorBoard: a view of ``log.jsonl``, made anew from it when a run goes on."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configuration.errors import ConfigurationError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
MEMORY = ("peak_bytes", "parameters_bytes", "gradients_bytes", "optimizer_bytes", "process_peak_bytes", "device_peak_bytes")


class Board:
    """Writes every number of a record as a scalar under ``training/``, ``validation/`` or ``memory/``.

    Raises ConfigurationError when TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "training.tensorboard: the package tensorboard is not installed (pip install 'moe-ledger[tensorboard]', or leave it false)"
            ) from None
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def begin_anew(self) -> None:
        """Forget what was written: the records come again."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a record of the log; what is no finite number is left out."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(f"{_section(name)}/{name.removeprefix('validation_')}", value, record["step"])

    def close(self) -> None:
        """Write out what is waiting."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _section(name: str) -> str:
    if name in MEMORY:
        return "memory"
    return "validation" if name.startswith("validation_") or name == "expert_load_entropy_nats" else "training"
