"""Memory that the host's tensors leave, by the page faults of those that follow; each case in a process of its own, since malloc belongs to all of it."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is glibc's")

PROGRAM = """
import resource, torch
from trainer.host_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (40, 3, 20):
        torch.ones(megabytes * 250_000).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
before, kept = faults(), keep_freed_memory()
for _ in range(5):
    faults()
print(kept, before, faults())
"""


def outcome(**variables: str) -> tuple[bool, int, int]:
    """Whether memory is kept, and the faults of the same allocations before and after."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment | variables)
    kept, before, after = done.stdout.split()
    return kept == "True", int(before), int(after)


def test_what_was_freed_is_used_again_without_page_faults() -> None:
    kept, before, after = outcome()
    assert kept
    # The largest, 40 MB, is above what malloc ever keeps by itself: 9,766 pages of 4 KiB, or 20 of 2 MiB.
    assert before >= 20
    assert after < before / 10


@pytest.mark.parametrize("variables", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}], ids=str)
def test_a_choice_of_the_environment_stays(variables: dict[str, str]) -> None:
    kept, before, after = outcome(**variables)
    assert not kept
    assert after >= before / 2


def test_other_settings_of_malloc_do_not_stand_in_the_way() -> None:
    assert outcome(MALLOC_ARENA_MAX="2")[0]
