"""Steps of decoding as CUDA graphs, and weights that are cast once for all of them.

A step of a small model is a thousand kernels of a few microseconds each; to launch them one by one from Python takes
many times as long as they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn


class StepGraph:
    """Work on a GPU that is done again and again on the same tensors: the first time as it is, then from a recording.

    A model that can't be recorded (one that waits for the GPU on the way) is done as it is every time, with a warning.
    """

    possible = True
    """Whether recording works; False for good after it has failed."""

    def __init__(self) -> None:
        self.done = 0
        self.recording: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        """Do the work once.

        Args:
            work: the same one each time: it reads and writes tensors whose shapes and addresses stay the same until
                `forget`. It isn't kept: a caller whose method it is would be freed late, by the garbage collector.
        """
        if self.done == 1 and StepGraph.possible:  # what the first time sets up for good is no part of a recording
            self.recording = _recorded(work)
        self.done += 1
        if self.recording is None:
            work()
        else:
            self.recording.replay()

    def forget(self) -> None:
        """Begin anew: the tensors have changed."""
        self.done, self.recording = 0, None


def _recorded(work: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=_pool(), capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
    except RuntimeError as error:
        StepGraph.possible = False
        rank_zero_warn(f"responses are drawn without CUDA graphs, which is slower: {str(error).splitlines()[0]}")
        return None
    finally:
        torch.cuda.current_stream().wait_stream(stream)
    return graph


_kept: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
"""For each device a recording that holds the memory which all others take turns in."""


def _pool() -> Any:
    device = torch.cuda.current_device()
    if device not in _kept:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.capture_begin(capture_error_mode="thread_local")
            held = torch.zeros(1, device=device)
            graph.capture_end()
        _kept[device] = graph, held
    return _kept[device][0].pool()


@contextmanager
def weights_cast_once(kind: str) -> Iterator[None]:
    """Under autocast, keep each weight's cast for all that is computed within, where nothing may change the weights.

    Lightning's mixed precision casts a weight anew each time it is used, which a step of decoding would do for a few
    rows. Takes the memory of the weights in half precision.

    Args:
        kind: type of the device, such as ``cuda``.
    """
    if not torch.is_autocast_enabled(kind):
        yield
        return
    torch.clear_autocast_cache()  # what is in it may be from before the weights changed
    try:
        with torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()
