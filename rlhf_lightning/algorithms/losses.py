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
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | None = None,
    weight: Tensor | None = None,
    probability: Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """Negative log-likelihood of the preferences under the Bradley-Terry model: ``-log sigmoid(chosen - rejected)``.

    Args:
        chosen: (b,) scores of the preferred completions.
        rejected: (b,) scores of the others.
        margin: (b,) how far apart the two should at least be (Llama 2, arXiv:2307.09288, 3.2.2).
        weight: (b,) non-negative; the loss is the weighted mean.
        probability: (b,) that ``chosen`` is preferred, where raters disagree: the loss is the cross-entropy with it,
            ``-p log sigmoid(gap) - (1 - p) log sigmoid(-gap)``, smallest where the gap (without the margin) is log-odds
            of p. None is 1.

    Returns:
        Scalar loss, and detached stats, unweighted means: ``accuracy``, how often the higher score is that of the
        completion which a rater prefers (a tie of scores counts one half), and ``gap``.
    """
    gap = chosen - rejected
    apart = gap if margin is None else gap - margin
    losses = -logsigmoid(apart)
    if probability is not None:
        losses = probability * losses - (1 - probability) * logsigmoid(-apart)
    loss = weighted_mean(losses, weight)
    with torch.no_grad():
        accuracy = agreement(gap, probability).mean()
    return loss, {"accuracy": accuracy, "gap": gap.detach().mean()}


def plackett_luce_loss(scores: Tensor, rank: Tensor, ranking: Tensor, weight: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of rankings under the Plackett-Luce model.

    The best item is drawn with the probabilities ``softmax(scores)``, the next one likewise of those that are left, and
    so on (Luce, Individual Choice Behavior, 1959; Plackett, The Analysis of Permutations, 1975). For two items it is
    the Bradley-Terry model. The likelihood of d tied items is approximated in Efron's way (The Efficiency of Cox's
    Likelihood Function for Censored Data, 1977, JASA 72): of the l-th of them, l = 0 to d - 1, the denominator holds
    all d, each counting 1 - l / d.

    Args:
        scores: (m,) of all rankings' items; gradients flow through them.
        rank: (m,) the lower the better; equal within a ranking where tied.
        ranking: (m,) int64 which ranking, 0 to g - 1, an item is of.
        weight: (g,) non-negative; the loss is the weighted mean over rankings. It is not divided by their lengths: a
            longer one tells more.

    Returns:
        Scalar loss.
    """
    count = int(ranking.max()) + 1
    same = ranking[:, None] == ranking[None, :]
    tied = same & (rank[:, None] == rank[None, :])
    earlier = torch.ones_like(tied).tril(-1)
    # How much each item (column) still counts in the denominator of each (row): 1 below it, 1 - l / d where tied.
    left = torch.where(tied, 1 - ((tied & earlier).sum(1) / tied.sum(1))[:, None], 0.0)
    left = torch.where(same & (rank[:, None] < rank[None, :]), 1.0, left).to(scores.dtype)
    denominators = torch.logsumexp(scores[None, :] + left.log(), 1)
    losses = scores.new_zeros(count).index_add(0, ranking, denominators - scores)
    return weighted_mean(losses, weight)


def unpaired_loss(scores: Tensor, label: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Stats]:
    """Cross-entropy of thumbs: ``-log sigmoid(score)`` for one up, ``-log sigmoid(-score)`` for one down.

    Args:
        scores: (u,) of the completions; gradients flow through them.
        label: (u,) 1 for a thumb up, 0 for one down, or the share of thumbs up.
        weight: (u,) non-negative; the loss is the weighted mean.

    Returns:
        Scalar loss, and detached stats: ``accuracy``, how often the score is above 0 for a thumb up and below it for
        one down (0 counts one half), an unweighted mean.
    """
    losses = -label * logsigmoid(scores) - (1 - label) * logsigmoid(-scores)
    with torch.no_grad():
        accuracy = agreement(scores, label).mean()
    return weighted_mean(losses, weight), {"accuracy": accuracy}


def agreement(gap: Tensor, probability: Tensor | None = None) -> Tensor:
    """(b,) how likely one who prefers with this probability (None is 1) agrees with the sign of a gap; 0 is half."""
    right = (gap > 0).float() + 0.5 * (gap == 0).float()
    return right if probability is None else probability * right + (1 - probability) * (1 - right)


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Scalar mean of (b,) values by non-negative weights; 0 where all of those are."""
    return values.mean() if weight is None else (values * weight).sum() / weight.sum().clamp(min=1e-8)
