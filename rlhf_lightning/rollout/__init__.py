"""Rollout: prompts in, sampled responses with log-probabilities, values and scores out."""

from rlhf_lightning.rollout.collect import Rollout, collect, token_pairs, trimmed

__all__ = ["Rollout", "collect", "token_pairs", "trimmed"]
