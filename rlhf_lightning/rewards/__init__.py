"""Rewards: text in, one number a sample out."""

from rlhf_lightning.rewards.classifier import ClassifierReward
from rlhf_lightning.rewards.functions import ConstantReward, FunctionReward, MetricReward, Reward, RewardFailure
from rlhf_lightning.rewards.http import HTTPReward
from rlhf_lightning.rewards.learned import LearnedReward
from rlhf_lightning.rewards.mix import RewardMix
from rlhf_lightning.rewards.people import PeopleReward, unattended

__all__ = [
    "ClassifierReward",
    "ConstantReward",
    "FunctionReward",
    "HTTPReward",
    "LearnedReward",
    "MetricReward",
    "PeopleReward",
    "Reward",
    "RewardFailure",
    "RewardMix",
    "unattended",
]
