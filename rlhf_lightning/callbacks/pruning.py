"""Ends a job of a sweep that does worse than the others did."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L

from rlhf_lightning.errors import UserError


class Pruned(Exception):
    """A sweep ended this run early: others had come further by the same time."""


class Prune(L.Callback):
    """After each validation tells the sweep how the run is doing, and ends it if told to.

    Args:
        metric: name under which the stage logs what the sweep looks at.
        judge: takes batches trained on and the metric, and says whether to end; only asked on rank zero.
    """

    def __init__(self, metric: str, judge: Callable[[int, float], bool]) -> None:
        self.metric, self.judge = metric, judge

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report, and end on all ranks together.

        Raises:
            Pruned: if the run is not worth going on with.
            UserError: if the metric is not measured here.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = trainer.callback_metrics.get(self.metric)
        if value is None:
            raise UserError(
                f"the sweep prunes by {self.metric}, which is not measured on the validation prompts: choose another "
                "objective, or hydra.sweeper.prune=null"
            )
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        end = trainer.is_global_zero and self.judge(batches, float(value))
        if trainer.strategy.broadcast(end):
            raise Pruned(
                f"pruned after {batches} batches: {self.metric} was {float(value):.4g}, worse than the median of the "
                "sweep's other jobs by then"
            )
