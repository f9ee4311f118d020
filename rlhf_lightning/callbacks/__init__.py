"""Callbacks and loggers: progress, samples, alarms, Weights & Biases."""

from rlhf_lightning.callbacks.alarms import Alarms
from rlhf_lightning.callbacks.progress import Progress
from rlhf_lightning.callbacks.samples import CollectSamples, LogSamples

__all__ = ["Alarms", "CollectSamples", "LogSamples", "Progress"]
