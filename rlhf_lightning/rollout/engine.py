"""What draws responses: the interface of all engines, and the one that is the reference for the others."""

from __future__ import annotations

from typing import Protocol

from rlhf_lightning.data.batches import PromptBatch
from rlhf_lightning.models.generation import Completions, Sampling
from rlhf_lightning.models.policy import Policy


class Engine(Protocol):
    """Draws a response to each prompt.

    Attributes:
        is_policy: whether it computes with the policy's own weights and layers, so that the log-probabilities that it
            tells are the policy's.
    """

    is_policy: bool

    def __call__(self, policy: Policy, batch: PromptBatch, sampling: Sampling, turn: int = 0) -> Completions:
        """Responses of at most ``codec.max_completion`` tokens, cut after the first end of sequence.

        Args:
            policy: as it is now; an engine with weights of its own takes these over first.
            batch: the prompts.
            sampling: how tokens are drawn.
            turn: which time these prompts are answered; the same turn gives the same answers.
        """
        ...


class GenerateEngine:
    """The ``generate`` of transformers: slower, for every model and strategy."""

    is_policy = True

    def __call__(self, policy: Policy, batch: PromptBatch, sampling: Sampling, turn: int = 0) -> Completions:
        """See `Engine`."""
        return policy.complete(batch, sampling, turn)
