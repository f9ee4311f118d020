"""RLHF for text tasks: SFT, reward model and PPO as PyTorch Lightning modules, composed by Hydra.

The public names are imported where they are first used (PEP 562): importing the package loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "EvaluateModule": "stages",
    "Evaluator": "stages",
    "LearnedReward": "rewards",
    "MetricReward": "rewards",
    "ModelSpec": "models",
    "PPOModule": "stages",
    "Policy": "models",
    "PreferenceDataModule": "data.modules",
    "Progress": "callbacks",
    "PromptDataModule": "data.modules",
    "RewardModel": "models",
    "RewardModule": "stages",
    "RowFormat": "data.format",
    "SFTDataModule": "data.modules",
    "SFTModule": "stages",
    "TinySpec": "models",
    "UserError": "errors",
    "load_task_data": "data.sources",
    "make_tiny": "models",
    "sample_files": "tasks",
}
"""Where each public name is defined, as a module of this package."""

__all__ = [
    "EvaluateModule",
    "Evaluator",
    "LearnedReward",
    "MetricReward",
    "ModelSpec",
    "PPOModule",
    "Policy",
    "PreferenceDataModule",
    "Progress",
    "PromptDataModule",
    "RewardModel",
    "RewardModule",
    "RowFormat",
    "SFTDataModule",
    "SFTModule",
    "TinySpec",
    "UserError",
    "load_task_data",
    "make_tiny",
    "sample_files",
]

if TYPE_CHECKING:
    from rlhf_lightning.callbacks import Progress
    from rlhf_lightning.data.format import RowFormat
    from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
    from rlhf_lightning.data.sources import load_task_data
    from rlhf_lightning.errors import UserError
    from rlhf_lightning.models import ModelSpec, Policy, RewardModel, TinySpec, make_tiny
    from rlhf_lightning.rewards import LearnedReward, MetricReward
    from rlhf_lightning.stages import EvaluateModule, Evaluator, PPOModule, RewardModule, SFTModule
    from rlhf_lightning.tasks import sample_files
else:  # hidden from type checkers, which would take every misspelt name for one that it finds

    def __getattr__(name: str) -> Any:
        """Import a public name from its home, and keep it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """The module's own names and the public ones, imported or not."""
    return sorted({*globals(), *__all__})
