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

    torch.set_num_threads(given["threads"])
    hush()
    return given


def hush() -> None:
    """Let transformers say nothing but errors."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def say(**figures: Any) -> None:
    """Write the figures to the file that is this process's second argument, with the peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    Path(sys.argv[2]).write_text(json.dumps({"peak_bytes": peak, **figures}), encoding="utf-8")


def epoch(seconds: list[float], tokens: list[int]) -> dict[str, list[float]]:
    """An epoch's seconds and tokens, from each step's tokens and the seconds of all steps but the first, a warm-up.

    Which rows that first step has differs (transformers begins a grouped epoch with the longest): what the others took
    is scaled to the tokens of all, so that neither side gains by it.
    """
    return {"seconds": [sum(seconds) * sum(tokens) / sum(tokens[1:])], "tokens": [float(sum(tokens))]}


class Ends:
    """A logits processor that ends each row at a length of its own, and never before.

    Args:
        lengths: tokens of each row's response, its end included.
        end: the ids that end one; the first is the one that is said.
        start: tokens before the response.
    """

    def __init__(self, lengths: list[int], end: list[int], start: int) -> None:
        self.lengths, self.end, self.start = lengths, end, start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        said = input_ids.shape[1] - self.start + 1
        scores = scores.clone()
        scores[:, self.end] = float("-inf")
        last = [i for i, length in enumerate(self.lengths) if length == said]
        scores[last] = float("-inf")
        scores[last, self.end[0]] = 0.0
        return scores


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
