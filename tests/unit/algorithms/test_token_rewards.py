"""From scores to token rewards."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.algorithms import missing_eos_penalty, token_rewards

MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])


def test_rewards_sum_to_score_less_kl() -> None:
    """Checklist 18: a response's rewards sum to its score - beta * its sequence KL; the score is on the last token."""
    torch.manual_seed(0)
    scores, kl = torch.randn(3), torch.randn(3, 3)
    rewards = token_rewards(scores, kl, MASK, 0.1)
    torch.testing.assert_close(rewards.sum(1), scores - 0.1 * kl.masked_fill(~MASK, 0).sum(1))
    for row, last in enumerate([2, 0, 1]):
        assert rewards[row, last].item() == pytest.approx((scores[row] - 0.1 * kl[row, last]).item(), rel=1e-5)
        torch.testing.assert_close(rewards[row, :last], -0.1 * kl[row, :last])
        assert (rewards[row, last + 1 :] == 0).all()


def test_rewards_without_a_reference() -> None:
    """Checklist 18: without a KL only the last token has a reward."""
    rewards = token_rewards(torch.tensor([1.0, 2.0, 3.0]), None, MASK, 0.1)
    assert rewards.tolist() == [[0, 0, 1], [2, 0, 0], [0, 3, 0]]


def test_kl_in_padding_is_not_read() -> None:
    """Checklist 19: not even NaN."""
    kl = torch.ones(3, 3).masked_fill(~MASK, torch.nan)
    assert torch.isfinite(token_rewards(torch.zeros(3), kl, MASK, 0.5)).all()


def test_missing_eos_both_modes() -> None:
    """Checklist 16: `replace` puts -penalty in the score's place, `subtract` takes it off; ended ones stay."""
    scores, ended = torch.tensor([3.0, 4.0, -7.0]), torch.tensor([True, False, False])
    assert missing_eos_penalty(scores, ended, 1.0, "replace").tolist() == [3, -1, -1]
    assert missing_eos_penalty(scores, ended, 1.5, "subtract").tolist() == [3, 2.5, -8.5]
    for mode in ("replace", "subtract"):
        assert missing_eos_penalty(scores, ended, 0.0, mode).tolist() == [3, 4, -7]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="replace"):
        missing_eos_penalty(scores, ended, 1.0, "drop")  # type: ignore[arg-type]
