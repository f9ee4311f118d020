"""From scores to token rewards."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.algorithms import leave_one_out, missing_eos_penalty, token_rewards

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


def test_leave_one_out_by_hand() -> None:
    """Two prompts of three responses: each less the mean of the other two."""
    gains = leave_one_out(torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3)
    assert gains.tolist() == [-3.0, -1.5, 4.5, -1.5, -1.5, 3.0]
    scores = torch.tensor([1.0, 2.0])
    assert leave_one_out(scores, 1) is scores


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-100, 100))
def test_leave_one_out_sees_no_difficulty(scores: list[float], difficulty: float) -> None:
    """What is added to all responses to a prompt changes nothing, and the gains of a prompt sum to 0."""
    plain = torch.tensor(scores, dtype=torch.float64)
    gains = leave_one_out(plain, len(scores))
    torch.testing.assert_close(leave_one_out(plain + difficulty, len(scores)), gains, atol=1e-9, rtol=0)
    assert gains.sum().item() == pytest.approx(0, abs=1e-9)


def test_leave_one_out_keeps_the_expected_gradient() -> None:
    """Over all pairs of draws from a policy over three answers, weighted by their chance, it is the true one."""
    logits = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, 4.0, -2.0], dtype=torch.float64)
    logprobs = logits.log_softmax(0)
    (true,) = torch.autograd.grad((logprobs.exp() * rewards).sum(), logits, retain_graph=True)
    estimate = torch.zeros(())
    for pair in itertools.product(range(3), repeat=2):
        drawn = list(pair)
        chance = logprobs[drawn].sum().exp().detach()
        estimate = estimate + chance * (leave_one_out(rewards[drawn], 2) * logprobs[drawn]).mean()
    (found,) = torch.autograd.grad(estimate, logits)
    torch.testing.assert_close(found, true)
