"""The losses of PPO and of the reward model.

Each masked loss is a mean over tokens. A caller that splits a minibatch weights each part by its share of the tokens,
and gets the gradient of the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_lightning.algorithms.advantages import masked_mean

Stats = dict[str, Tensor]


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, Stats]:
    """PPO's clipped surrogate objective, negated (Schulman et al., 2017, arXiv:1707.06347, equation 7).

    Args:
        logprobs: (b, r) log-probabilities of the response tokens now; gradients flow through them.
        old_logprobs: (b, r) at sampling.
        advantages: (b, r).
        mask: (b, r) boolean, true on response tokens.
        clip_range: how far the probability ratio may move from 1 before the gradient stops.

    Returns:
        Scalar loss, and detached stats: ``clip_fraction``, ``approx_kl`` (k3, old against new),
        ``ratio`` and ``ratio_var``; ``ratio_square``, the mean square of ratio - 1, from which and the mean ratios the
        variance over several batches is made.
    """
    log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
    ratio = log_ratio.exp()
    advantages = advantages.masked_fill(~mask, 0.0)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = masked_mean(torch.maximum(plain, clipped), mask)
    with torch.no_grad():
        ratio_mean = masked_mean(ratio, mask)
        stats = {
            "clip_fraction": masked_mean((clipped > plain).float(), mask),
            "approx_kl": masked_mean(ratio - 1 - log_ratio, mask),
            "ratio": ratio_mean,
            "ratio_var": masked_mean((ratio - ratio_mean).square(), mask),
            "ratio_square": masked_mean((ratio - 1).square(), mask),
        }
    return loss, stats


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, Stats]:
    """Half the squared error of the critic, the larger of the plain and the clipped one.

    The clipped prediction stays within ``clip_range`` of the value at sampling (Ziegler et al., 2019).

    Args:
        values: (b, r) values now; gradients flow through them.
        old_values: (b, r) at sampling.
        returns: (b, r) targets.
        mask: (b, r) boolean.
        clip_range: bound of the move.

    Returns:
        Scalar loss, and detached stats: ``clip_fraction``.
    """
    clipped = values.clamp(old_values - clip_range, old_values + clip_range)  # within the bounds exactly the value
    plain_error = (values - returns).square()
    clipped_error = (clipped - returns).square()
    loss = 0.5 * masked_mean(torch.maximum(plain_error, clipped_error), mask)
    return loss, {"clip_fraction": masked_mean((clipped_error > plain_error).detach().float(), mask)}


def pairwise_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor | None = None, weight: Tensor | None = None
) -> tuple[Tensor, Stats]:
    """Negative log-likelihood of the preferences under the Bradley-Terry model: ``-log sigmoid(chosen - rejected)``.

    Args:
        chosen: (b,) scores of the preferred completions.
        rejected: (b,) scores of the others.
        margin: (b,) how far apart the two should at least be (Llama 2, arXiv:2307.09288, 3.2.2).
        weight: (b,) non-negative; the loss is the weighted mean.

    Returns:
        Scalar loss, and detached stats: ``accuracy`` (a tie counts one half) and ``gap``, unweighted means.
    """
    gap = chosen - rejected
    losses = -logsigmoid(gap if margin is None else gap - margin)
    loss = losses.mean() if weight is None else (losses * weight).sum() / weight.sum().clamp(min=1e-8)
    with torch.no_grad():
        accuracy = ((gap > 0).float() + 0.5 * (gap == 0).float()).mean()
    return loss, {"accuracy": accuracy, "gap": gap.detach().mean()}
