"""Learning a reward from preferences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from rlhf_lightning import optim
from rlhf_lightning.algorithms import pairwise_loss
from rlhf_lightning.data.batches import PairBatch
from rlhf_lightning.models.reward_model import RewardModel
from rlhf_lightning.stages.guard import GuardedModule
from rlhf_lightning.stages.logging import log_step
from rlhf_lightning.stages.sharding import shard_parts
from rlhf_lightning.stages.timing import amounts


class RewardModule(GuardedModule):
    """The Bradley-Terry loss on pairs of completions.

    Logs ``reward/loss``, ``reward/accuracy``, its speed, and ``reward/pairs`` and ``reward/tokens`` seen so far
    (`TimedModule`); after each validation ``reward/val/accuracy``, beside it ``reward/val/longer_wins`` (how often the
    longer completion was preferred: the rule to beat; a tie counts one half), ``reward/val/accuracy_chosen_longer`` and
    ``_shorter``, and ``reward/val/calibration_error``: the mean difference between the predicted probability of the
    preference and its frequency, in ten bins of confidence.

    Args:
        model: the reward model to train.
        lr: peak learning rate.
        optimizer: made of the parameters and ``lr``.
        schedule: made of the optimizer and the number of steps.
        max_bad_steps: steps that can't be taken, for a number that is not finite, at which the training stops.
    """

    bins: Tensor

    def __init__(
        self,
        model: RewardModel,
        lr: float = 1e-5,
        optimizer: optim.OptimizerFactory = optim.default_optimizer,
        schedule: optim.Schedule = optim.cosine,
        max_bad_steps: int = 3,
    ) -> None:
        super().__init__("reward", max_bad_steps)
        self.model = model
        self.lr, self.optimizer, self.schedule = lr, optimizer, schedule
        names = ("loss", "accuracy", "longer_wins", "accuracy_chosen_longer", "accuracy_chosen_shorter")
        self.means = torch.nn.ModuleDict({name: MeanMetric(nan_strategy="ignore") for name in names})
        self.register_buffer("bins", torch.zeros(3, 10), persistent=False)  # pairs, confidence, right: ten bins each

    def configure_model(self) -> None:
        """Deal the model out where the strategy is FSDP2."""
        shard_parts(self, self.model)

    def _gaps(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        scores = self.model(batch.input_ids, batch.mask, batch.type_ids)
        chosen, rejected = scores.chunk(2)
        return chosen, rejected

    def on_fit_start(self) -> None:
        """Training mode (dropout is 0 all the same)."""
        self.model.train()

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; over ranks and accumulated batches it averages to that of all their pairs."""
        chosen, rejected = self._gaps(batch)
        loss, stats = pairwise_loss(chosen, rejected, batch.margin, batch.weight)
        self.watch(lambda: self._texts(batch), chosen=chosen, rejected=rejected)
        self.count(pairs=batch.portion.real)
        log_step(self, "reward", {"loss": loss.detach(), **stats}, batch.portion, shown=("loss", "accuracy"))
        return loss * batch.portion.scale

    def read(self, batch: PairBatch) -> Tensor:
        """The tokens of both texts of each pair."""
        lengths, counts = batch.mask.sum(1), batch.counts.repeat(2)
        parts = [
            amounts(lengths[rows], counts[rows], lengths[rows], lengths[rows].max())
            for rows in self.model.groups(batch.mask)
        ]
        return torch.stack(parts).sum(0)

    def _texts(self, batch: PairBatch) -> list[str]:
        codec, pairs = self.model.codec, len(batch.weight)
        texts = [codec.decode(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]
        return [f"{texts[i]} [rather than] {texts[i + pairs]}" for i in range(pairs)]

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add held-out pairs to the measures."""
        chosen, rejected = (scores[batch.counts] for scores in self._gaps(batch))
        gap = chosen - rejected
        right = (gap > 0).float() + 0.5 * (gap == 0).float()
        chosen_length, rejected_length = (lengths[batch.counts] for lengths in batch.lengths.chunk(2))
        longer = (chosen_length > rejected_length).float() + 0.5 * (chosen_length == rejected_length).float()
        measured = {
            "loss": -torch.nn.functional.logsigmoid(gap),
            "accuracy": right,
            "longer_wins": longer,
            "accuracy_chosen_longer": right[longer == 1],
            "accuracy_chosen_shorter": right[longer == 0],
        }
        for name, mean in self.means.items():
            mean.update(measured[name])  # type: ignore[operator]
        confidence = torch.sigmoid(gap.abs())  # 0.5 to 1
        where = ((confidence - 0.5) * 20).long().clamp(max=9)
        for i, values in enumerate((torch.ones_like(right), confidence, right)):
            self.bins[i].index_add_(0, where, values)

    def on_validation_epoch_end(self) -> None:
        """Log the measures of all batches."""
        # Every rank takes part in every one, also where its own share held no such pair.
        results = {name: float(mean.compute()) for name, mean in self.means.items()}  # type: ignore[operator]
        results = {name: value for name, value in results.items() if not math.isnan(value)}
        for mean in self.means.values():
            mean.reset()  # type: ignore[operator]
        pairs, confidence, right = self.trainer.strategy.reduce(self.bins.clone(), reduce_op="sum")
        self.bins.zero_()
        results["calibration_error"] = float((confidence - right).abs().sum() / pairs.sum().clamp(min=1))
        self.log_dict({f"reward/val/{name}": value for name, value in results.items()} | self.total_figures())

    def configure_optimizers(self) -> Any:
        """The optimizer, with a schedule that moves every step."""
        optimizer = optim.fused(
            self.optimizer([p for p in self.model.parameters() if p.requires_grad], lr=self.lr), self.trainer
        )
        schedule = self.schedule(optimizer, optim.training_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
