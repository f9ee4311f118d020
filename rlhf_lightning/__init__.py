"""RLHF for text tasks: SFT, reward model and PPO as PyTorch Lightning modules, composed by Hydra."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "EvaluateModule": "stages",
    "Evaluator": "stages",
    "PPOModule": "stages",
    "RewardModule": "stages",
    "SFTModule": "stages",
    "PreferenceDataModule": "data.modules",
    "PromptDataModule": "data.modules",
    "SFTDataModule": "data.modules",
    "LearnedReward": "rewards",
    "MetricReward": "rewards",
    "ModelSpec": "models",
    "Policy": "models",
    "RewardModel": "models",
    "RowFormat": "data.format",
    "TinySpec": "models",
    "UserError": "errors",
    "load_task_data": "data.sources",
    "make_tiny": "models",
    "sample_files": "tasks",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the public classes where they are first used: importing the package loads nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
