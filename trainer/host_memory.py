"""What tensors in the host's memory leave is kept for those that follow, as PyTorch's allocator does on a GPU."""

import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_MAX`` of glibc's ``malloc.h``."""
PREFIX, TUNABLES = "MALLOC_", "GLIBC_TUNABLES"
"""Variables by which a user tells malloc what to do."""


def keep_freed_memory() -> bool:
    """Let malloc serve large blocks from the heap and give none of it back; whether it does from now on (mallopt(3)).

    By default each large block is mapped anew, and what is free at the heap's end goes back to the system: a step then pays a page fault for every 4 KiB
    that it writes for the first time. Now it pays for them once, and the process stays as large as it was at its peak. Where there is no glibc, or where
    the environment says what malloc does, nothing is changed.
    """
    if any(name.startswith(PREFIX) for name in os.environ) or "glibc.malloc." in os.environ.get(TUNABLES, ""):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all([library.mallopt(MMAP_MAX, 0), library.mallopt(TRIM_THRESHOLD, -1)])
