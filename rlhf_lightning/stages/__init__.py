"""The stages, as LightningModules that wire the other rooms together."""

from rlhf_lightning.stages.evaluate import EvaluateModule, Evaluator, Sample
from rlhf_lightning.stages.ppo import PPOModule
from rlhf_lightning.stages.reward import RewardModule
from rlhf_lightning.stages.sft import SFTModule
from rlhf_lightning.stages.sharding import FSDP2Strategy

__all__ = ["EvaluateModule", "Evaluator", "FSDP2Strategy", "PPOModule", "RewardModule", "SFTModule", "Sample"]
