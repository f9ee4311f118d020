"""Rollout: prompts in, sampled responses with log-probabilities, values and scores out."""

from rlhf_lightning.rollout.collect import Rollout, collect, token_pairs
from rlhf_lightning.rollout.engine import Engine, GenerateEngine
from rlhf_lightning.rollout.native import NativeEngine
from rlhf_lightning.rollout.vllm import VLLMEngine

__all__ = [
    "Engine",
    "GenerateEngine",
    "NativeEngine",
    "Rollout",
    "VLLMEngine",
    "collect",
    "token_pairs",
]
