"""What tensors in the host's memory leave is kept for those that follow, as PyTorch's allocator does on a GPU."""

import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_MAX`` of glibc's ``malloc.h``."""
CHOICES = ("mmap_max", "mmap_threshold", "top_pad", "trim_threshold")
"""What a user may choose in the environment, each as ``MALLOC_NAME_`` or ``GLIBC_TUNABLES=glibc.malloc.name=...``."""


def keep_freed_memory() -> bool:
    """Let malloc serve large blocks from the heap and give none of it back; whether it does from now on (mallopt(3)).

    By default each large block is mapped anew, and what is free at the heap's end goes back to the system: a step then pays a page fault for every 4 KiB
    that it writes for the first time. Now it pays for them once, and the process stays as large as it was at its peak. Where there is no glibc, or where
    the environment says what malloc keeps, nothing is changed.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}=" in tunables for name in CHOICES):
        return False
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return False
    return all([library.mallopt(MMAP_MAX, 0), library.mallopt(TRIM_THRESHOLD, -1)])
