"""Warnings about runs that go wrong while their numbers look fine."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from rlhf_lightning.metrics import negative_kl


class Alarms(L.Callback):
    """Warns, once each, of a KL that is clearly negative and of log-probabilities that don't match those at sampling.

    Attributes:
        raised: what was warned of, in words for the report.
    """

    def __init__(self, kl_tolerance: float = 0.5, gap_limit: float = 0.01) -> None:
        self.kl_tolerance, self.gap_limit = kl_tolerance, gap_limit
        self.raised: dict[str, str] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Look at what the step logged."""
        kl, gap = (trainer.callback_metrics.get(f"ppo/{name}") for name in ("kl", "logprob_gap"))
        if kl is not None and negative_kl(float(kl), self.kl_tolerance):
            self._raise(
                "negative_kl",
                f"the KL to the reference is negative ({float(kl):.2f} nats): samples are not drawn from the policy's "
                "own distribution (truncated sampling does that)",
            )
        if gap is not None and float(gap) > self.gap_limit:
            self._raise(
                "logprob_gap",
                f"log-probabilities at sampling and at the first update differ by up to {float(gap):.3f}: "
                "PPO's ratio does not start at 1",
            )

    def _raise(self, name: str, text: str) -> None:
        if name not in self.raised:
            self.raised[name] = text
            rank_zero_warn(f"alarm: {text}")
