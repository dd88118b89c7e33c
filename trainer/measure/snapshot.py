"""The CUDA allocator's history of one step, every allocation with where it was made, for pytorch.org/memory_viz."""

from pathlib import Path

import torch

from trainer.measure.subject import Subject

MOST_EVENTS = 1_000_000
"""Allocations and frees that the allocator keeps; a step of 12 layers has some thousands."""


def write_snapshot(subject: Subject, file: Path) -> None:
    """Record one step and write it (a pickle, as PyTorch's viewers read it)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.cuda.memory._record_memory_history(max_entries=MOST_EVENTS)
    try:
        subject.step()
        torch.cuda.memory._dump_snapshot(file.as_posix())  # type: ignore[no-untyped-call]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
