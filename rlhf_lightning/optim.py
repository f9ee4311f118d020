"""Learning-rate schedules, as functions of an optimizer and the number of steps (over transformers' own)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf_lightning.errors import UserError

OptimizerFactory = Callable[..., Optimizer]
"""Makes an optimizer of parameters (or parameter groups) and ``lr``, with everything else filled in."""

Schedule = Callable[[Optimizer, int], LRScheduler]
"""Makes a schedule of an optimizer and the number of steps of the whole training."""


def training_steps(trainer: Trainer) -> int:
    """Steps that a Trainer will take, as Lightning counts them: a schedule has to know where it ends.

    Raises:
        UserError: if only time limits the training.
    """
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UserError("a schedule needs to know the end: give max_epochs or max_steps (max_time may end it sooner)")
    return max(int(steps), 1)


def fused(optimizer: Optimizer, trainer: Trainer) -> Optimizer:
    """Let Adam and AdamW take their steps in one pass over the weights, without copies of them, where nobody chose.

    Half precision's loss scaler wants to see gradients before the optimizer does, and DeepSpeed has steps of its own:
    there nothing is changed.
    """
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if isinstance(optimizer, Adam) and not scaled and not isinstance(trainer.strategy, DeepSpeedStrategy):
        for group in optimizer.param_groups:
            if group["fused"] is None and not any(group[k] for k in ("foreach", "capturable", "differentiable")):
                group["fused"] = True
    return optimizer


def default_optimizer(parameters: Iterable[Any], lr: float) -> Optimizer:
    """AdamW with eps 1e-5 (arXiv:2403.17031, detail 20) and no weight decay."""
    return AdamW(parameters, lr=lr, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0)


def _warmup_steps(warmup: float, steps: int) -> int:
    return round(warmup * steps) if warmup < 1 else round(warmup)


def linear(optimizer: Optimizer, steps: int, warmup: float = 0.0) -> LRScheduler:
    """Up from 0 over the warm-up, then down to 0 along a line; ``warmup`` is a share (below 1) or a number of steps."""
    from transformers import get_linear_schedule_with_warmup

    return get_linear_schedule_with_warmup(optimizer, _warmup_steps(warmup, steps), steps)


def cosine(optimizer: Optimizer, steps: int, warmup: float = 0.0) -> LRScheduler:
    """Up from 0 over the warm-up, then down to 0 along half a cosine."""
    from transformers import get_cosine_schedule_with_warmup

    return get_cosine_schedule_with_warmup(optimizer, _warmup_steps(warmup, steps), steps)


def constant(optimizer: Optimizer, steps: int, warmup: float = 0.0) -> LRScheduler:
    """Up from 0 over the warm-up, then constant."""
    from transformers import get_constant_schedule_with_warmup

    return get_constant_schedule_with_warmup(optimizer, _warmup_steps(warmup, steps))
