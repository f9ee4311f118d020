"""Masked statistics and generalised advantage estimation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` where ``mask`` is true, over all positions.

    Args:
        x: values, any shape.
        mask: boolean, same shape; what lies outside is never read (not even NaN).

    Returns:
        Scalar; 0 where the mask is empty.
    """
    return x.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def whiten(
    x: Tensor, mask: Tensor, shift_mean: bool = True, all_reduce: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Scale masked values to unit variance (biased, with 1e-8 added) and, unless told otherwise, zero mean.

    Args:
        x: values, any shape.
        mask: boolean, same shape.
        shift_mean: False keeps the mean where it was (used for rewards, whose sign means something).
        all_reduce: sums a tensor over all ranks; with it the statistics are those of the global batch.

    Returns:
        The whitened values; 0 outside the mask.
    """
    reduce = all_reduce or (lambda t: t)
    # Two passes: the sum of squares of one pass loses all digits where the mean is large beside the spread.
    total, count = reduce(torch.stack([x.masked_fill(~mask, 0.0).sum(), mask.sum().to(x.dtype)]))
    count = count.clamp(min=1)
    mean = total / count
    centred = (x - mean).masked_fill(~mask, 0.0)
    variance = reduce(centred.square().sum()) / count
    whitened = centred * torch.rsqrt(variance + 1e-8)
    return whitened if shift_mean else (whitened + mean).masked_fill(~mask, 0.0)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., 2016, arXiv:1506.02438).

    The episode ends with the last masked position: the value after it is 0.

    Args:
        rewards: (b, r) reward of each response token.
        values: (b, r) value of the state in which each token was chosen.
        mask: (b, r) boolean, true on response tokens; contiguous from the left.
        gamma: discount.
        lam: trade-off between bias (0) and variance (1).

    Returns:
        ``advantages (b, r)`` and ``returns (b, r)`` = advantages + values; both 0 outside the mask.
    """
    rewards = rewards.masked_fill(~mask, 0.0)
    values = values.masked_fill(~mask, 0.0)
    advantage = next_value = torch.zeros_like(rewards[:, 0])
    advantages = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # Padding has reward, value and so delta 0: it hands 0 on to the last real token.
        advantage = delta + gamma * lam * advantage
        advantages[:, t] = advantage
        next_value = values[:, t]
    return advantages, (advantages + values).masked_fill(~mask, 0.0)
