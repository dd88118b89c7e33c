"""Where the files of a distributed checkpoint go: beside their place first, moved there whole once every rank has written."""

import os
import shutil
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from configuration.command import to_json
from trainer.checkpoints.folder import STATE_FILE, remove_old, replaced, sizes_bytes, writing


class AtomicWriter(HuggingFaceStorageWriter):  # type: ignore[misc, unused-ignore]
    """Every rank writes its shards as safetensors; the coordinator then adds ``texts``, forces all to disk and renames.

    torch's own metadata file is a pickle; this format keeps shapes and offsets in the headers of the safetensors files instead.
    """

    def __init__(self, final: Path, state: dict[str, Any], texts: dict[str, str], keep: int | None) -> None:
        super().__init__(str(writing(final)), save_distributed=True)
        # torch syncs before it has flushed its own buffer; write_data does it after the file is closed.
        self.sync_files = False
        self.final, self.state, self.texts, self.keep = final, state, texts, keep

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Touch nothing: other ranks may still be here when the coordinator clears what a killed save left."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Runs on the coordinator, before any rank writes."""
        folder = Path(self.path)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return super().prepare_global_plan(plans)  # type: ignore[no-any-return, unused-ignore]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        """Write this rank's shards and force them to disk."""
        written = super().write_data(plan, planner)
        for file in {result.storage_data.relative_path for result in written.value()}:
            _sync(Path(self.path) / file)
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Runs on the coordinator, after all ranks have written: the checkpoint appears, and older ones go."""
        folder = Path(self.path)
        shards = {result.storage_data.relative_path for written in results for result in written}
        if absent := sorted(shard for shard in shards if not (folder / shard).is_file()):
            raise OSError(f"{folder}: {absent[0]}, written by another rank, is not here: the run's folder must be on a disk that all ranks share")
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            _sync(folder / name)
        (folder / STATE_FILE).write_text(to_json(self.state | {"files": sizes_bytes(folder)}), encoding="utf-8")
        _sync(folder / STATE_FILE)
        _sync(folder)
        _put_in_place(folder, self.final)
        if self.keep is not None:
            remove_old(self.final.parents[1], self.keep)


def _put_in_place(folder: Path, final: Path) -> None:
    """Rename; one of the same step moves aside first, and counts as there until the new one is."""
    aside = replaced(final)
    if final.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    folder.rename(final)
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
