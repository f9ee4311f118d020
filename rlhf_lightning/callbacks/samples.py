"""What the model answered: gathered for the report, and shown in W&B."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.stages.evaluate import Sample


def of_all_ranks(samples: list[Sample], trainer: L.Trainer) -> list[Sample]:
    """The samples of every rank, each row once, in the order of the data set; every rank gets all."""
    if trainer.world_size > 1:
        parts: list[list[Sample]] = [[] for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(parts, samples)
        samples = [sample for part in parts for sample in part]
    return [sample for _, sample in sorted({sample.id: sample for sample in samples}.items())]


class CollectSamples(L.Callback):
    """Keeps the samples of a test run, of all ranks, in the order of the data set.

    Attributes:
        samples: filled when the run has ended.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        """Take up a batch."""
        self.samples.extend(outputs["samples"])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the ranks together."""
        self.samples = of_all_ranks(self.samples, trainer)


class LogSamples(L.Callback):
    """Writes the first answers of every validation as a W&B table ``<stage>/val/samples`` that grows over training.

    Args:
        stage: name that the table is under.
        n: answers a validation.
    """

    def __init__(self, stage: str, n: int = 8) -> None:
        self.stage, self.n = stage, n
        self.rows: list[list[Any]] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the first answers of the first batch."""
        if batch_idx or outputs is None or trainer.sanity_checking:
            return
        for sample in outputs["samples"][: self.n]:
            prompt = transcript(sample.row.prompt.text)
            self.rows.append([trainer.global_step, prompt, " | ".join(sample.row.references), sample.completion])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table anew, with all rows so far: a table in W&B can't be appended to."""
        if not self.rows:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                columns = ["step", "prompt", "references", "completion"]
                logger.log_table(f"{self.stage}/val/samples", columns=columns, data=self.rows)
