"""Sweeps that learn from their own jobs: search space, study, pruning, and what they come to."""

from rlhf_lightning.sweep.sweeper import OptunaSweeper, register_plugins

__all__ = ["OptunaSweeper", "register_plugins"]
