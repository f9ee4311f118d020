"""Memory of training on a CPU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rlhf_lightning import memory

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


@pytest.mark.parametrize(
    ("most", "asked", "kept"),
    [
        (1 << 31, [(-3, 1 << 30), (-1, -1)], True),
        (1 << 25, [(-3, 1 << 30), (-3, 1 << 25), (-1, -1)], True),
        (1 << 20, [(-3, 1 << 30), (-3, 1 << 25)], False),
    ],
)
def test_what_an_older_library_refuses(most: int, asked: list, kept: bool, monkeypatch) -> None:
    """One that allows 32 MiB gets 32; one that allows less is left as it is, for half of it is worse than nothing."""
    calls = []

    def mallopt(option: int, value: int) -> int:
        calls.append((option, value))
        return int(option == -1 or value <= most)

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert memory.keep_freed_memory() == kept
    assert calls == asked
