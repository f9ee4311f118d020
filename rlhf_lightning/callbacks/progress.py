"""The progress bar: epochs counted from 1, PPO's rounds instead of its optimizer steps."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's rich bar with an end that is known also where training is bounded by ``max_steps``.

    A module whose batch takes several optimizer steps says how many in ``steps_per_batch``.
    """

    @property
    def total_train_batches(self) -> int | float:
        """Batches of this epoch: fewer than the data holds where ``max_steps`` comes first."""
        trainer = self.trainer
        batches = trainer.num_training_batches
        if trainer.max_steps == -1:
            return batches
        steps_per_batch = getattr(trainer.lightning_module, "steps_per_batch", 1 / trainer.accumulate_grad_batches)
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        done = done if done < batches else 0  # still those of the epoch before; others are of one that is resumed
        return min(batches, done + math.ceil((trainer.max_steps - trainer.global_step) / steps_per_batch))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What the stage logs for the bar, without the logger's version."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}" + (f"/{epochs}" if epochs is not None and epochs > 0 else "")
        return f"{text:{len(self.validation_description)}}"  # one width, as the bar of validation comes and goes
