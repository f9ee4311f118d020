"""Callbacks and loggers: progress, samples, alarms, Weights & Biases."""

from rlhf_lightning.callbacks.alarms import Alarms
from rlhf_lightning.callbacks.checkpoints import BestModel, Checkpoints, newest_checkpoint
from rlhf_lightning.callbacks.profile import Profile
from rlhf_lightning.callbacks.progress import Progress
from rlhf_lightning.callbacks.pruning import Prune, Pruned
from rlhf_lightning.callbacks.samples import CollectSamples, LogSamples
from rlhf_lightning.callbacks.stopping import StopRequest

__all__ = [
    "Alarms",
    "BestModel",
    "Checkpoints",
    "CollectSamples",
    "LogSamples",
    "Profile",
    "Progress",
    "Prune",
    "Pruned",
    "StopRequest",
    "newest_checkpoint",
]
