"""Masked statistics, whitening and generalised advantage estimation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf_lightning.algorithms import gae, masked_mean, whiten


def lengths_mask(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def brute_force(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Equation 16 of the paper, summed term by term for one episode."""
    n = len(rewards)
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)]


finite = st.floats(-5, 5, width=32)
episodes = st.lists(st.lists(st.tuples(finite, finite), min_size=1, max_size=7), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(episodes, st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_gae_equals_brute_force(rows: list[list[tuple[float, float]]], gamma: float, lam: float) -> None:
    """Checklist 21: the sum of the paper, with value 0 after the end; padding is never read."""
    width = max(map(len, rows)) + 1
    mask = lengths_mask([len(row) for row in rows], width)
    rewards, values = torch.full((2, len(rows), width), math.nan, dtype=torch.float64)
    for i, row in enumerate(rows):
        rewards[i, : len(row)] = torch.tensor([r for r, _ in row])
        values[i, : len(row)] = torch.tensor([v for _, v in row])
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for i, row in enumerate(rows):
        expected = torch.tensor(brute_force([r for r, _ in row], [v for _, v in row], gamma, lam), dtype=torch.float64)
        torch.testing.assert_close(advantages[i, : len(row)], expected)
        torch.testing.assert_close(returns[i, : len(row)], expected + values[i, : len(row)])
    assert (advantages[~mask] == 0).all()
    assert (returns[~mask] == 0).all()


def test_gae_lambda_one_gives_returns_to_go() -> None:
    """Checklist 21: with lambda 1 the returns are the discounted rewards still to come, whatever the critic says."""
    torch.manual_seed(1)
    rewards, values, mask = torch.randn(3, 5), torch.randn(3, 5) * 100, lengths_mask([5, 3, 1], 5)
    _, returns = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    kept = rewards.masked_fill(~mask, 0)
    to_go = kept.flip(1).cumsum(1).flip(1).masked_fill(~mask, 0)
    torch.testing.assert_close(returns, to_go, atol=1e-4, rtol=0)


def test_gae_lambda_zero_gives_one_step_errors() -> None:
    """Checklist 21: with lambda 0 each advantage is the step's own temporal difference."""
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 1.5, 2.5]])
    advantages, _ = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=0.9, lam=0.0)
    torch.testing.assert_close(advantages, torch.tensor([[1 + 0.9 * 1.5 - 0.5, 2 + 0.9 * 2.5 - 1.5, 3 - 2.5]]))


def test_masked_mean_ignores_what_is_outside() -> None:
    """Checklist 19: not even NaN outside the mask is read; an empty mask gives 0."""
    x = torch.tensor([[1.0, 2.0, math.nan], [6.0, math.inf, math.nan]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(x, mask).item() == 3.0
    assert masked_mean(x, torch.zeros_like(mask)).item() == 0.0


def test_whiten_scales_to_biased_unit_variance() -> None:
    """Checklist 22: mean 0, variance 1 with the biased estimate, 0 outside the mask, eps 1e-8."""
    torch.manual_seed(2)
    x, mask = torch.randn(4, 6) * 3 + 50, lengths_mask([6, 4, 2, 5], 6)
    white = whiten(x, mask)
    inside = x[mask]
    expected = (inside - inside.mean()) / (inside.var(unbiased=False) + 1e-8).sqrt()
    torch.testing.assert_close(white[mask], expected, atol=1e-4, rtol=1e-4)
    assert (white[~mask] == 0).all()


def test_whiten_of_equal_values_is_zero() -> None:
    """Checklist 22: without any spread the eps keeps the result finite, and 0."""
    assert (whiten(torch.full((2, 3), 7.0), torch.ones(2, 3, dtype=torch.bool)) == 0).all()


def test_reward_whitening_keeps_the_mean() -> None:
    """Checklist 20: with shift_mean=False the masked mean stays where it was, the variance becomes 1."""
    torch.manual_seed(3)
    x, mask = torch.randn(3, 5) * 4 - 2, lengths_mask([5, 2, 4], 5)
    kept = whiten(x, mask, shift_mean=False)
    torch.testing.assert_close(masked_mean(kept, mask), masked_mean(x, mask))
    torch.testing.assert_close(kept[mask].var(unbiased=False), torch.tensor(1.0))
    assert (kept[~mask] == 0).all()


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_over_two_ranks_equals_one(shift_mean: bool) -> None:
    """Checklist 22: one rank of 8 rows gives what two ranks of 4 give, whose sums are added up."""
    torch.manual_seed(4)
    x, mask = torch.randn(8, 5) + torch.arange(8)[:, None], lengths_mask([5, 1, 2, 3, 4, 5, 5, 2], 5)
    halves = [(x[:4], mask[:4]), (x[4:], mask[4:])]

    # Each rank asks for one sum after the other; the other rank's share is what it asked for at the same point.
    asked: list[list[Tensor]] = [[], []]

    def recording(rank: int, totals: list[Tensor]):
        def reduce(t: Tensor) -> Tensor:
            asked[rank].append(t)
            k = len(asked[rank]) - 1
            return totals[k] if k < len(totals) else t

        return reduce

    totals: list[Tensor] = []
    for _ in range(2):  # the second sum depends on the first one's total
        asked = [[], []]
        for rank, half in enumerate(halves):
            whiten(*half, shift_mean=shift_mean, all_reduce=recording(rank, totals))
        totals.append(asked[0][len(totals)] + asked[1][len(totals)])
    asked = [[], []]
    parts = [
        whiten(*half, shift_mean=shift_mean, all_reduce=recording(rank, totals)) for rank, half in enumerate(halves)
    ]
    torch.testing.assert_close(torch.cat(parts), whiten(x, mask, shift_mean=shift_mean))
    alone = torch.cat([whiten(*half, shift_mean=shift_mean) for half in halves])
    assert not torch.allclose(alone, whiten(x, mask, shift_mean=shift_mean))
