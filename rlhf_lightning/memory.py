"""Memory of training on a CPU."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's options, from its malloc.h."""

_LARGEST = (1 << 30, 1 << 25)
"""Bytes up to which a tensor's memory is kept; older versions of glibc allow no more than the second."""


def keep_freed_memory() -> bool:
    """Let the C library keep what large tensors free, for those that come next; whether it does from now on.

    By itself glibc gives it back to the system, which has to clear every page of it when the next step asks for it
    again: on a CPU 5 to 10 % of a training step. The most that is taken at once stays the same. Other C libraries, and
    settings of the user's own (MALLOC_TRIM_THRESHOLD_ and the like), are left as they are.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    # Never the second without the first: by itself it would end glibc's own rule, which lets some memory be kept.
    return any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST) and bool(mallopt(_TRIM_THRESHOLD, -1))
