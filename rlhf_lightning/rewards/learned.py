"""A learned reward model as a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.models.loading import ModelSpec
from rlhf_lightning.models.reward_model import RewardModel


class LearnedReward:
    """Scores by a reward model, with the model's own tokenizer.

    Args:
        model: a `RewardModel`, or the name or folder of one.
        max_prompt, max_completion: limits in tokens, where it is loaded here.
        system: system message for chat models, likewise.
        trust_remote_code: run code that comes with the model.
    """

    def __init__(
        self,
        model: RewardModel | str | Path,
        max_prompt: int = 512,
        max_completion: int = 128,
        system: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if not isinstance(model, RewardModel):
            spec = ModelSpec(str(model), trust_remote_code=trust_remote_code)
            model = RewardModel.load(spec, max_prompt=max_prompt, max_completion=max_completion, system=system)
        self.model = model.requires_grad_(False).eval()

    def to(self, device: torch.device) -> None:
        """Move the model."""
        if self.model.device != device:
            self.model.to(device)

    def score(self, prompts: list[Prompt], completions: list[str]) -> Tensor:
        """(b,) scores; prompts as the data has them, so that chats and cut documents are encoded as in training."""
        return self.model.score(prompts, completions)

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) scores of plain texts."""
        return self.score([Prompt(text) for text in prompts], completions)
