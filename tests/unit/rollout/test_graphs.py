"""Recorded steps, and weights that are cast once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf_lightning.rollout.graphs import StepGraph, weights_cast_once

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="recordings need a GPU")


def test_casts_are_kept_for_as_long_as_they_hold_and_change_nothing() -> None:
    """Within, a weight's change goes unseen, which shows that the cast is kept; outside it is seen at once."""
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        plain = layer(x)
        with weights_cast_once("cpu"):
            assert torch.equal(layer(x), plain)
            layer.weight.mul_(2)
            assert torch.equal(layer(x), plain)
        changed = layer(x)
        assert not torch.equal(changed, plain)
        with weights_cast_once("cpu"):
            assert torch.equal(layer(x), changed)
        assert not torch.is_autocast_cache_enabled()


def test_without_autocast_nothing_is_cast() -> None:
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    with weights_cast_once("cpu"):
        assert layer(x).dtype == torch.float32


@needs_gpu
def test_a_recording_does_the_work_again() -> None:
    """Every call counts once: the first, the one that is recorded, and those replayed; also after other work."""
    x, calls = torch.zeros(3, device="cuda"), []
    graph = StepGraph()

    def work() -> None:
        calls.append(1)
        x.add_(1)

    for n in range(1, 6):
        graph(work)
        assert x.tolist() == [n] * 3
    assert len(calls) == 2, "done, and recorded; then replayed"
    graph.forget()
    graph(work)
    assert len(calls) == 3
    assert x.tolist() == [6] * 3


@needs_gpu
def test_work_that_waits_for_the_gpu_is_done_without_a_recording(monkeypatch) -> None:
    monkeypatch.setattr(StepGraph, "possible", True)
    x = torch.zeros(3, device="cuda")
    graph = StepGraph()

    def work() -> None:
        x.add_(1 + 0 * float(x[0]))

    graph(work)
    with pytest.warns(UserWarning, match="without CUDA graphs"):
        graph(work)
    graph(work)
    assert x.tolist() == [3] * 3
