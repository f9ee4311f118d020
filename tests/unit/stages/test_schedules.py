"""Learning-rate schedules and the default optimizer."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning import optim


def rates(schedule, steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, steps, **options)
    seen = []
    for _ in range(steps + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_linear_ends_at_zero() -> None:
    """Checklist 27: from the peak along a line to 0."""
    assert rates(optim.linear, 4) == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_cosine_ends_at_zero() -> None:
    """Checklist 27: half a cosine."""
    assert rates(optim.cosine, 4) == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-5)


def test_constant_stays() -> None:
    assert rates(optim.constant, 3) == [1, 1, 1, 1]


@pytest.mark.parametrize("schedule", [optim.linear, optim.cosine])
@pytest.mark.parametrize("warmup", [0.2, 2])
def test_warmup_as_share_or_steps(schedule, warmup: float) -> None:
    """A share below 1 or a number of steps; up from 0, still down to 0."""
    seen = rates(schedule, 10, warmup=warmup)
    assert seen[:3] == pytest.approx([0, 0.5, 1])
    assert seen[-1] == pytest.approx(0, abs=1e-9)


def test_default_optimizer() -> None:
    """Checklist 27: AdamW with eps 1e-5 and no decay."""
    optimizer = optim.default_optimizer([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["eps"], optimizer.defaults["weight_decay"], optimizer.defaults["lr"]) == (1e-5, 0.0, 0.1)
