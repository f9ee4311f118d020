"""From one score a response to one reward a token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

MissingEOS = Literal["replace", "subtract"]


def missing_eos_penalty(scores: Tensor, ended: Tensor, penalty: float, mode: MissingEOS) -> Tensor:
    """Punish responses that did not end.

    Args:
        scores: (b,).
        ended: (b,) boolean: the response holds an end-of-sequence token.
        penalty: a positive number; 0 leaves the scores as they are.
        mode: ``replace`` sets the score to ``-penalty`` (arXiv:2403.17031, detail 23), ``subtract`` takes it off.

    Returns:
        (b,)

    Raises:
        ValueError: for another mode.
    """
    if mode not in ("replace", "subtract"):
        raise ValueError(f"mode must be 'replace' or 'subtract', got {mode!r}")
    if penalty == 0:
        return scores
    punished = torch.full_like(scores, -penalty) if mode == "replace" else scores - penalty
    return torch.where(ended, scores, punished)


def leave_one_out(scores: Tensor, size: int, scored: Tensor | None = None) -> Tensor:
    """Each score less the mean of the other scores of its prompt (RLOO: Ahmadian et al., 2024, arXiv:2402.14740).

    What others got for the same prompt says how hard it is, and doesn't depend on this response: taking it off leaves
    the expected policy gradient as it is, with less noise.

    Args:
        scores: (b,); the ``size`` responses to a prompt stand beside each other.
        size: responses a prompt; 1 leaves the scores as they are.
        scored: (b,) boolean; the scores of the other responses are unknown, and no part of any mean. None is all.

    Returns:
        (b,); without meaning where the score is unknown, or every other score of the prompt: see `has_others`.
    """
    if size == 1:
        return scores
    groups = scores.view(-1, size)
    if scored is None:
        others = (groups.sum(1, keepdim=True) - groups) / (size - 1)
    else:
        known = scored.view(-1, size)
        groups = groups.masked_fill(~known, 0.0)
        others = (groups.sum(1, keepdim=True) - groups) / (known.sum(1, keepdim=True) - 1).clamp(min=1)
    return (groups - others).flatten()


def has_others(scored: Tensor, size: int) -> Tensor:
    """(b,) boolean: the responses that are scored and, with several to a prompt, not the only one of it that is.

    What a lone score gains over the others nobody knows. A gain of 0 would be a guess, and would pull critic and
    whitening towards it; so it is not learnt from at all.

    Args:
        scored: (b,) boolean; the ``size`` responses to a prompt stand beside each other.
        size: responses a prompt.
    """
    if size == 1:
        return scored
    groups = scored.view(-1, size)
    return (groups & (groups.sum(1, keepdim=True) > 1)).flatten()


def token_rewards(scores: Tensor, kl: Tensor | None, mask: Tensor, kl_coef: float) -> Tensor:
    """Reward of each token: ``-kl_coef * kl``, and the score once, on the last response token.

    Args:
        scores: (b,).
        kl: (b, r) per-token KL estimate, or None without a reference.
        mask: (b, r) boolean; contiguous from the left, at least one token a row.
        kl_coef: weight of the penalty.

    Returns:
        (b, r); 0 outside the mask.
    """
    rewards = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
    if kl is not None:
        rewards = rewards - kl_coef * kl.masked_fill(~mask, 0.0)
    last = mask.sum(1) - 1
    return rewards.scatter_add(1, last.unsqueeze(1), scores.unsqueeze(1))
