"""Callbacks and loggers: samples, alarms, Weights & Biases."""

from rlhf_lightning.callbacks.alarms import Alarms
from rlhf_lightning.callbacks.samples import CollectSamples, LogSamples

__all__ = ["Alarms", "CollectSamples", "LogSamples"]
