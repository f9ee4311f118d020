"""Fused optimizer steps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rlhf_lightning import optim


def stub(scaler: object = None) -> SimpleNamespace:
    return SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler), strategy=None)


@pytest.mark.parametrize(
    ("given", "scaler", "expected"),
    [({}, None, True), ({"foreach": True}, None, None), ({"fused": False}, None, False), ({}, "a scaler", None)],
)
def test_only_where_nobody_chose(given, scaler, expected) -> None:
    """A choice stays; loss scaling keeps the plain step."""
    made = torch.optim.AdamW([torch.zeros(2, requires_grad=True)], lr=0.1, **given)
    assert optim.fused(made, stub(scaler)).param_groups[0]["fused"] is expected


def test_takes_the_same_steps() -> None:
    """Ten fused steps end where ten plain ones do, from equal gradients."""
    weights = [torch.nn.Parameter(torch.arange(5.0)) for _ in range(2)]
    optimizers = [optim.default_optimizer([w], lr=0.1) for w in weights]
    optim.fused(optimizers[0], stub())
    for step in range(10):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.full_like(weight, 1.0 + step)
            optimizer.step()
    assert weights[0].abs().sum() != torch.arange(5.0).sum()
    torch.testing.assert_close(*weights)


def test_other_optimizers_are_left_alone() -> None:
    """SGD has no such step that nobody asked for."""
    made = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
    assert optim.fused(made, stub()).param_groups[0]["fused"] is None
