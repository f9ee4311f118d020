"""Supervised fine-tuning on demonstrations."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor

from rlhf_lightning import optim
from rlhf_lightning.data.batches import PromptBatch, SFTBatch
from rlhf_lightning.models.classifier import Classifier
from rlhf_lightning.models.policy import Policy
from rlhf_lightning.stages.evaluate import Evaluator, Sample
from rlhf_lightning.stages.logging import log_step


class SFTModule(L.LightningModule):
    """Next-token loss on completions; for an encoder, cross-entropy of the labels.

    Gradient clipping and accumulation are the Trainer's. Logs ``sft/loss``, ``sft/token_accuracy``, and after each
    validation ``sft/val/<measure>`` of the answers to held-out prompts.

    Args:
        policy: the model to train.
        lr: peak learning rate.
        optimizer: made of the parameters and ``lr``.
        schedule: made of the optimizer and the number of steps.
        evaluator: measures the answers to validation prompts; without one validation is skipped.
    """

    def __init__(
        self,
        policy: Policy | Classifier,
        lr: float = 2e-5,
        optimizer: optim.OptimizerFactory = optim.default_optimizer,
        schedule: optim.Schedule = optim.cosine,
        evaluator: Evaluator | None = None,
    ) -> None:
        super().__init__()
        self.policy, self.evaluator = policy, evaluator
        self.lr, self.optimizer, self.schedule = lr, optimizer, schedule

    def on_fit_start(self) -> None:
        """Training mode: `from_pretrained` leaves models in inference mode. (Dropout is 0 all the same.)"""
        self.policy.train()

    def training_step(self, batch: SFTBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; over ranks and accumulated batches it averages to that of all their tokens."""
        loss, stats = self.policy.sft_loss(batch)
        log_step(self, "sft", {"loss": loss.detach(), **stats}, batch.portion, shown=("loss",))
        return loss * batch.portion.scale

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, list[Sample]] | None:
        """Answer held-out prompts; the samples go to the callbacks."""
        if self.evaluator is None:
            return None
        return {"samples": self.evaluator.step(self.policy, batch)}

    def on_validation_epoch_end(self) -> None:
        """Log the measures of all batches."""
        if self.evaluator is not None:
            self.log_dict({f"sft/val/{name}": value for name, value in self.evaluator.compute().items()})

    def configure_optimizers(self) -> Any:
        """The optimizer, with a schedule that moves every step."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = self.optimizer(trained, lr=self.lr)
        schedule = self.schedule(optimizer, optim.training_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
