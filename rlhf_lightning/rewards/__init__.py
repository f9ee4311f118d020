"""Rewards: text in, one number a sample out."""

from rlhf_lightning.rewards.functions import ConstantReward, FunctionReward, MetricReward, Reward
from rlhf_lightning.rewards.learned import LearnedReward
from rlhf_lightning.rewards.mix import RewardMix

__all__ = ["ConstantReward", "FunctionReward", "LearnedReward", "MetricReward", "Reward", "RewardMix"]
