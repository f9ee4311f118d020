"""The losses, by numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.algorithms import pairwise_loss, policy_loss, value_loss

ON = torch.ones(1, 4, dtype=torch.bool)


def test_policy_loss_by_hand() -> None:
    """Checklist 25: ratios 1.5 and 0.5 with either sign of the advantage, clip 0.2."""
    old = torch.zeros(1, 4)
    new = torch.tensor([[1.5, 0.5, 1.5, 0.5]]).log()
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    # max(-A r, -A clip(r)): -1.2 (clipped), -0.5, 1.5, 0.8 (clipped)
    loss, stats = policy_loss(new, old, advantages, ON, 0.2)
    assert loss.item() == pytest.approx((-1.2 - 0.5 + 1.5 + 0.8) / 4)
    assert stats["clip_fraction"].item() == 0.5
    assert stats["ratio"].item() == pytest.approx(1.0)
    assert stats["ratio_var"].item() == pytest.approx(0.25)
    expected = (0.5 - math.log(1.5) + -0.5 - math.log(0.5)) / 2
    assert stats["approx_kl"].item() == pytest.approx(expected, rel=1e-5)


def test_policy_gradient_stops_outside_the_clip_range() -> None:
    """Checklist 25: no gradient flows where the ratio has moved far enough the way the advantage pushes."""
    new = torch.tensor([[1.5, 0.5, 1.5, 0.5]]).log().requires_grad_()
    loss, _ = policy_loss(new, torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, -1.0]]), ON, 0.2)
    loss.backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, -0.5, 1.5, 0.0]]) / 4)


def test_value_loss_by_hand() -> None:
    """Checklist 25: half the larger of the squared errors, of the value and of the value held within 0.2 of the old."""
    old, new = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.1]])
    returns = torch.tensor([[1.0, 1.0]])
    loss, stats = value_loss(new, old, returns, torch.ones(1, 2, dtype=torch.bool), 0.2)
    # first: plain 0, clipped (0.2 - 1)^2; second: both (0.1 - 1)^2
    assert loss.item() == pytest.approx(0.5 * (0.64 + 0.81) / 2)
    assert stats["clip_fraction"].item() == 0.5


@pytest.mark.parametrize("loss", ["policy", "value"])
def test_losses_do_not_read_padding(loss: str) -> None:
    """Checklist 19: what lies in the padding changes neither loss nor statistics nor gradient."""
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    clean = [torch.randn(2, 4) * 0.3 for _ in range(3)]

    def run(fill: float):
        a, b, c = (t.masked_fill(~mask, fill) for t in clean)
        a.requires_grad_()
        function = policy_loss if loss == "policy" else value_loss
        value, stats = function(a, b, c, mask, 0.2)
        value.backward()
        assert a.grad is not None
        return [value, *stats.values(), a.grad[mask]], a.grad[~mask]

    (base, outside), (noisy, noisy_outside) = run(0.0), run(1e4)
    for x, y in zip(base, noisy, strict=True):
        torch.testing.assert_close(x, y)
    assert (outside == 0).all()
    assert (noisy_outside == 0).all()


def test_pairwise_loss_is_log_two_at_equality() -> None:
    """Checklist 8: equal scores give log 2, and a tie counts one half."""
    loss, stats = pairwise_loss(torch.tensor([1.0, -3.0]), torch.tensor([1.0, -3.0]))
    assert loss.item() == pytest.approx(math.log(2))
    assert stats["accuracy"].item() == 0.5


def test_pairwise_loss_margin_and_weight() -> None:
    """Checklist 8: -log sigmoid(gap - margin), weighted mean; the accuracy is of the gap without its margin."""
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    loss, stats = pairwise_loss(chosen, rejected, margin=torch.tensor([0.5, 0.0]), weight=torch.tensor([3.0, 1.0]))
    by_hand = (3 * math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(1.0))) / 4
    assert loss.item() == pytest.approx(by_hand)
    assert stats["accuracy"].item() == 0.5
    assert stats["gap"].item() == pytest.approx(0.5)


def test_pairwise_loss_of_weight_zero_is_ignored() -> None:
    """Checklist 8: a pair of weight 0 says nothing, also where its scores are far off."""
    scores = torch.tensor([1.0, -50.0]), torch.tensor([0.0, 50.0])
    loss, _ = pairwise_loss(*scores, weight=torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)))


def test_rounding_is_not_counted_as_clipping() -> None:
    generator = torch.Generator().manual_seed(0)
    old, move, returns = (torch.randn(50, 40, generator=generator) for _ in range(3))
    mask = torch.ones(50, 40, dtype=torch.bool)
    _, stats = value_loss(old + move.clamp(-1, 1) * 0.19, old, returns, mask, 0.2)
    assert stats["clip_fraction"].item() == 0
