"""What both sides of a comparison share: the work, read from a file, and how it is reported."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def work() -> dict[str, Any]:
    """The work, from the file that is this process's argument; torch gets its number of threads."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ["OMP_NUM_THREADS"] = str(given["threads"])
    import torch
    import transformers

    torch.set_num_threads(given["threads"])
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return given


def say(**figures: Any) -> None:
    """Write the figures to the file that is this process's second argument, with the peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    Path(sys.argv[2]).write_text(json.dumps({"peak_bytes": peak, **figures}), encoding="utf-8")


class Marks:
    """Moments, and what lies between those of one name."""

    def __init__(self) -> None:
        self.at: dict[str, list[float]] = {}

    def __call__(self, name: str) -> None:
        self.at.setdefault(name, []).append(time.perf_counter())

    def between(self, start: str, end: str) -> list[float]:
        """Seconds from each moment of one name to the moment of the other that has the same number."""
        return [b - a for a, b in zip(self.at[start], self.at[end], strict=True)]

    def apart(self, name: str) -> list[float]:
        """Seconds from each moment of a name to the next."""
        return [b - a for a, b in zip(self.at[name], self.at[name][1:], strict=False)]
