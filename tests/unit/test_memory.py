"""Memory of training on a CPU."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from rlhf_lightning.memory import keep_freed_memory
torch.set_num_threads(1)
print(keep_freed_memory() if {keep} else None)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(20_000_000)
before = faults()
for _ in range(20):
    torch.ones(20_000_000)
print(faults() - before)
"""


def outcome(keep: bool, **environment: str) -> list[str]:
    import os

    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", STEPS.format(keep=keep)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**own, **environment}
    ).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_pages_are_used_again() -> None:
    """Twenty tensors of 80 MB, one after the other, take fresh pages each time; kept, next to none."""
    told, kept = outcome(keep=True)
    fresh = outcome(keep=False)[1]
    assert told == "True"
    assert int(fresh) > 19 * 80_000_000 / 4096 / 2, "half of the pages, at least"
    assert int(kept) < int(fresh) / 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_settings_of_the_users_own_stay() -> None:
    assert outcome(keep=True, MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
