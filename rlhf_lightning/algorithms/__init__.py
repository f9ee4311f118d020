"""Pure tensor functions of RLHF: advantages, KL, losses, whitening. They import torch alone."""

from rlhf_lightning.algorithms.advantages import gae, masked_mean, whiten
from rlhf_lightning.algorithms.head import HeadOutput, head_logprobs
from rlhf_lightning.algorithms.kl import AdaptiveKL, FixedKL, kl_estimate
from rlhf_lightning.algorithms.logprobs import entropy, full_kl, token_logprobs
from rlhf_lightning.algorithms.losses import (
    agreement,
    pairwise_loss,
    plackett_luce_loss,
    policy_loss,
    unpaired_loss,
    value_loss,
)
from rlhf_lightning.algorithms.rewards import has_others, leave_one_out, missing_eos_penalty, token_rewards

__all__ = [
    "AdaptiveKL",
    "FixedKL",
    "HeadOutput",
    "agreement",
    "entropy",
    "full_kl",
    "gae",
    "has_others",
    "head_logprobs",
    "kl_estimate",
    "leave_one_out",
    "masked_mean",
    "missing_eos_penalty",
    "pairwise_loss",
    "plackett_luce_loss",
    "policy_loss",
    "token_logprobs",
    "token_rewards",
    "unpaired_loss",
    "value_loss",
    "whiten",
]
