"""One round of experience."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rlhf_lightning.data.batches import Batch, PromptBatch
from rlhf_lightning.data.micro_batches import micro_batches, trimmed
from rlhf_lightning.models.generation import Sampling
from rlhf_lightning.models.policy import Policy
from rlhf_lightning.models.reference import Reference
from rlhf_lightning.models.sharding import is_sharded
from rlhf_lightning.rewards.mix import RewardMix
from rlhf_lightning.rollout.engine import Engine

IMPORTANCE_CAP = 2.0
"""Bound of the importance weights (truncated importance sampling, as in F. Yao et al., "Your efficient RL framework
secretly brings you off-policy RL training", 2025): above it one token could outweigh all others."""


class Critic(Protocol):
    """Gives (b, r) values of the response tokens' states."""

    def __call__(self, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor) -> Tensor:
        """Values of the states in which the response tokens were chosen."""
        ...


@dataclass(frozen=True)
class Rollout(Batch):
    """Sampled responses and all that the update needs of them; made without gradients.

    Attributes:
        prompt_ids, prompt_mask: (b, p), as in `PromptBatch`.
        response_ids: (b, r) int64, padded on the right.
        response_mask: (b, r) bool, true up to and including the first end-of-sequence token.
        logprobs: (b, r) of the response tokens under the policy that drew them, at the sampling temperature.
        importance: (b, r) how much more likely the policy makes a token than what drew it, at most `IMPORTANCE_CAP`; 1
            where both are the same.
        ref_logprobs: (b, r) likewise under the reference; equal to ``logprobs`` where there is none.
        values: (b, r) of the critic.
        scores: (b,) weighted sum of the rewards, before any penalty; 0 where a reward failed.
        scored: (b,) bool, the response is learnt from: no reward failed for it.
        ended: (b,) bool, the response has an end-of-sequence token.
        rewards: each reward by its name, (b,) each; NaN where it failed.
        texts: the b responses, decoded.
        seconds: time of the phases ``sample``, ``score`` and, where there was such a pass, ``forward``.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    logprobs: Tensor
    importance: Tensor
    ref_logprobs: Tensor
    values: Tensor
    scores: Tensor
    scored: Tensor
    ended: Tensor
    rewards: dict[str, Tensor]
    texts: list[str]
    seconds: dict[str, float]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def lengths(self) -> Tensor:
        """(b,) tokens of prompt and response."""
        return self.prompt_mask.sum(1) + self.response_mask.sum(1)

    @property
    def learnt_mask(self) -> Tensor:
        """(b, r) bool, the response tokens that are learnt from."""
        return self.response_mask & self.scored.unsqueeze(1)


def token_pairs(ids: Tensor, mask: Tensor) -> list[tuple[int, int]]:
    """Tokens that follow each other.

    Args:
        ids: (b, r) responses.
        mask: (b, r) bool.

    >>> token_pairs(torch.tensor([[5, 6, 5, 0]]), torch.tensor([[True, True, True, False]]))
    [(5, 6), (6, 5)]
    """
    both = mask[:, :-1] & mask[:, 1:]
    return list(zip(ids[:, :-1][both].tolist(), ids[:, 1:][both].tolist(), strict=True))


def _now(device: torch.device) -> float:
    """Seconds on a clock, once all that the device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def collect(
    batch: PromptBatch,
    policy: Policy,
    engine: Engine,
    rewards: RewardMix,
    sampling: Sampling,
    reference: Reference | None,
    critic: Critic | None,
    micro_batch_tokens: int | None = None,
    turn: int = 0,
) -> Rollout:
    """Sample a response to every prompt, score it, and look at it with policy, reference and critic.

    What the engine had on the way is not computed again, where it computed with the policy's own weights in float32:
    then it is the same but for rounding. Log-probabilities from another engine or in half precision are not what the
    update will have: they are computed anew, and give the importance weights.

    Args:
        batch: the prompts.
        policy: draws the responses; its own value head gives the values where ``critic`` is None.
        engine: how they are drawn.
        rewards: score the texts.
        sampling: how tokens are drawn. Log-probabilities are at its temperature.
        reference: what the KL is taken against; None where there is no KL penalty.
        critic: a critic apart from the policy.
        micro_batch_tokens: tokens a forward pass, see `micro_batches`.
        turn: which time responses are sampled; each has draws of its own.
    """
    device = batch.prompt_ids.device
    clock = _now(device)
    answers = engine(policy, batch, sampling, turn)
    seconds = {"sample": _now(device) - clock}

    clock = _now(device)
    scores = rewards.each(batch.rows, answers.texts, device)
    total = rewards.total(scores)
    seconds["score"] = _now(device) - clock

    clock = _now(device)
    mask = answers.mask
    logprobs, ref_logprobs, values = (torch.zeros(mask.shape, device=device) for _ in range(3))
    known = engine.is_policy and policy.is_exact and answers.logprobs is not None
    if known:
        assert answers.logprobs is not None
        logprobs = answers.logprobs.masked_fill(~mask, 0.0)
        values = values if answers.values is None else answers.values.masked_fill(~mask, 0.0)
    lengths = batch.prompt_mask.sum(1) + mask.sum(1)
    passes = not known or critic is not None or reference is not None
    if passes:
        for rows in micro_batches(lengths, micro_batch_tokens, is_sharded(policy.model)):
            inputs = trimmed(batch.prompt_ids, batch.prompt_mask, answers.ids, mask, rows, policy.kind == "causal")
            width = inputs[2].shape[1]
            if not known:
                output = policy.token_outputs(*inputs, sampling.temperature, with_values=critic is None)
                logprobs[rows, :width] = output.logprobs
                if output.values is not None:
                    values[rows, :width] = output.values
            if critic is not None:
                values[rows, :width] = critic(*inputs)
            if reference is not None:
                ref_logprobs[rows, :width] = reference.logprobs(*inputs, sampling.temperature)
    importance = torch.ones_like(logprobs)
    if answers.logprobs is not None and not known:
        importance = (logprobs - answers.logprobs).masked_fill(~mask, 0.0).exp().clamp(max=IMPORTANCE_CAP)
    if passes:
        seconds["forward"] = _now(device) - clock

    return Rollout(
        prompt_ids=batch.prompt_ids,
        prompt_mask=batch.prompt_mask,
        response_ids=answers.ids,
        response_mask=mask,
        logprobs=logprobs,
        importance=importance,
        ref_logprobs=ref_logprobs if reference is not None else logprobs,
        values=values.masked_fill(~mask, 0.0),
        scores=total.masked_fill(total.isnan(), 0.0),
        scored=~total.isnan(),
        ended=answers.ended,
        rewards=scores,
        texts=answers.texts,
        seconds=seconds,
    )
