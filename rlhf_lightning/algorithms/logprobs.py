"""Log-probabilities and entropies from logits, in float32 whatever the logits' precision."""

from __future__ import annotations

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token.

    Args:
        logits: (..., v).
        ids: (...) token ids.
        temperature: what the logits are divided by first.

    Returns:
        (...) float32.
    """
    logits = logits.float() / temperature
    chosen = logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of the distribution that ``logits (..., v)`` give at a temperature: (...) float32."""
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def full_kl(logits: Tensor, ref_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(policy || reference) of the whole next-token distributions, in nats: (..., v), (..., v) -> (...) float32."""
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    ref_logprobs = torch.log_softmax(ref_logits.float() / temperature, dim=-1)
    return (logprobs.exp() * (logprobs - ref_logprobs)).sum(-1)
