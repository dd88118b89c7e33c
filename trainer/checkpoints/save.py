"""Write checkpoints while training goes on."""

import warnings
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from configuration.errors import ConfigurationError
from trainer.checkpoints.folder import SCHEMA_VERSION, TOKENIZER_FILE, checkpoint_folder, clear_unfinished
from trainer.checkpoints.state import training_tensors
from trainer.data.tokenizer import Tokenizer
from trainer.loop.experiment import Experiment
from trainer.parallel.world import World

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from torch import nn


class Saver:
    """Saves the state of a run: ``save`` copies it and returns, a thread writes the copy. One checkpoint is under way at a time."""

    def __init__(self, run: Path, world: World, *, keep: int | None = None) -> None:
        self.run = run
        self.world = world
        self.keep = keep
        """Newest checkpoints that stay; None: all."""
        self.last: Path | None = None
        """The last checkpoint that is whole on disk."""
        self._under_way: tuple[Path, Future[object]] | None = None
        self._group: dist.ProcessGroup | None = None

    def save(self, step: int, model: "nn.Module", optimizer: "torch.optim.Optimizer", *, experiment: Experiment, data_key: str, tokenizer: Tokenizer) -> None:
        """Begin to save the state after ``step`` steps, every rank its shards. A checkpoint of the same step is replaced.

        Waits for the one before, and raises what that one ran into.
        """
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
        from torch.distributed.checkpoint.state_dict_saver import async_save

        from trainer.checkpoints.storage import AtomicWriter

        self.wait()
        final = checkpoint_folder(self.run, step)
        if self.world.first:
            clear_unfinished(self.run)
        state = {"schema_version": SCHEMA_VERSION, "step": step, "data_key": data_key, "experiment": experiment.as_dict()}
        writer = AtomicWriter(final, state, {TOKENIZER_FILE: tokenizer.to_json()}, self.keep)
        # This stager copies tensors of the CPU too, which training is about to change.
        stager = DefaultStager(StagingOptions(use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False))
        silence_torch()
        future = async_save(training_tensors(model, optimizer, self.world), storage_writer=writer, async_stager=stager, process_group=self._own_group())
        assert isinstance(future, Future)
        self._under_way = final, future

    def wait(self) -> Path | None:
        """Wait until the checkpoint under way is on disk; returns the last whole one. Raises ConfigurationError when it cannot be written."""
        from torch.distributed.checkpoint.api import CheckpointException

        if self._under_way is not None:
            final, future = self._under_way
            self._under_way = None
            try:
                future.result()
            except CheckpointException as failed:
                reason = next(iter(failed.failures.values()))[0]
                raise ConfigurationError(f"checkpoint {final} cannot be written: {reason}") from None
            self.last = final
        return self.last

    def _own_group(self) -> "dist.ProcessGroup | None":
        """A group on the CPU for the writing threads alone: their messages must not mix with those of training."""
        import torch.distributed as dist

        if self._group is None and dist.is_initialized():
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.world.timeout_s))
        return self._group


def save_checkpoint(
    run: Path, step: int, model: "nn.Module", optimizer: "torch.optim.Optimizer", *, experiment: Experiment, data_key: str, tokenizer: Tokenizer
) -> Path:
    """Save the state that this process holds whole, after ``step`` steps, as a folder of ``run``, and wait for it; returns the folder."""
    saver = Saver(run, World(experiment.plan))
    saver.save(step, model, optimizer, experiment=experiment, data_key=data_key, tokenizer=tokenizer)
    folder = saver.wait()
    assert folder is not None
    return folder


def silence_torch() -> None:
    """Keep torch from remarking on a process without a group, in this thread or in the one that writes."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
