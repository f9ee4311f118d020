"""Learning a reward from preferences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchmetrics import MeanMetric

from rlhf_lightning import optim
from rlhf_lightning.algorithms import agreement, pairwise_loss, plackett_luce_loss, unpaired_loss
from rlhf_lightning.data.batches import PairBatch
from rlhf_lightning.models.reward_model import RewardModel
from rlhf_lightning.stages.guard import GuardedModule
from rlhf_lightning.stages.logging import log_step, ratios
from rlhf_lightning.stages.sharding import shard_parts
from rlhf_lightning.stages.timing import amounts


class RewardModule(GuardedModule):
    """Learns a score from judgements: the Bradley-Terry loss on pairs of completions, that of Plackett and Luce on
    rankings that are to be learnt as such, and the cross-entropy of the score on completions with a thumb up or down.

    The loss of a batch is the weighted mean over all of these. Logs ``reward/loss``, ``reward/accuracy`` of the pairs,
    its speed, and ``reward/pairs``, ``reward/unpaired`` and ``reward/tokens`` seen so far (`TimedModule`); of thumbs
    ``reward/unpaired_loss`` and ``reward/unpaired_accuracy``, of rankings ``reward/ranking_loss``, and beside these
    ``reward/pair_loss``. After each validation ``reward/val/accuracy``, beside it ``reward/val/longer_wins`` (how often
    the longer completion was preferred: the rule to beat; a tie counts one half), ``reward/val/accuracy_chosen_longer``
    and ``_shorter``, ``reward/val/calibration_error``: the mean difference between the predicted probability of the
    preference and its frequency, in ten bins of confidence; and loss and accuracy of held-out thumbs. Where raters
    disagree, each is a mean over raters: the accuracy is how often the model agrees with one drawn at random.

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
        of_pairs = ("loss", "accuracy", "longer_wins", "accuracy_chosen_longer", "accuracy_chosen_shorter")
        names = (*of_pairs, "unpaired_loss", "unpaired_accuracy")
        self.means = torch.nn.ModuleDict({name: MeanMetric(nan_strategy="ignore") for name in names})
        self.register_buffer("bins", torch.zeros(3, 10), persistent=False)  # pairs, confidence, right: ten bins each

    def configure_model(self) -> None:
        """Deal the model out where the strategy is FSDP2."""
        shard_parts(self, self.model)

    def on_fit_start(self) -> None:
        """Training mode (dropout is 0 all the same)."""
        self.model.train()

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; over ranks and accumulated batches it averages to that of all their judgements."""
        scores = self.model(batch.input_ids, batch.mask, batch.type_ids)
        nothing = scores.new_zeros(())
        losses = dict.fromkeys(("pair_loss", "ranking_loss", "unpaired_loss"), (nothing, nothing))  # and their weights
        agreed = dict.fromkeys(("accuracy", "gap", "unpaired_accuracy"), (nothing, nothing))
        if len(batch.weight):
            chosen, rejected = scores[batch.chosen], scores[batch.rejected]
            loss, stats = pairwise_loss(chosen, rejected, batch.margin, batch.weight, batch.probability)
            losses["pair_loss"] = loss, (batch.weight * batch.counts).sum()
            agreed |= {name: (value, batch.counts.sum()) for name, value in stats.items()}
            self.watch(lambda: self._pair_texts(batch), chosen=chosen, rejected=rejected)
        if (rankings := batch.rankings) is not None:
            loss = plackett_luce_loss(scores[rankings.text], rankings.rank, rankings.ranking, rankings.weight)
            losses["ranking_loss"] = loss, rankings.weight.sum()
        if (thumbs := batch.thumbs) is not None:
            shown = scores[thumbs.text]
            loss, stats = unpaired_loss(shown, thumbs.label, thumbs.weight)
            losses["unpaired_loss"] = loss, (thumbs.weight * thumbs.counts).sum()
            agreed["unpaired_accuracy"] = stats["accuracy"], thumbs.counts.sum()
            self.watch(lambda: self._thumb_texts(batch), score=shown)
        whole = torch.stack([weight for _, weight in losses.values()]).sum()
        total = torch.stack([loss * (weight / whole.clamp(min=1e-8)) for loss, weight in losses.values()]).sum()
        unpaired = 0 if thumbs is None else int(thumbs.counts.sum())
        self.count(pairs=int(batch.counts.sum()), unpaired=unpaired)
        means = {"loss": (total, whole), **losses, **agreed}
        sums = {name: ((value * weight).detach(), weight.float()) for name, (value, weight) in means.items()}
        logged = ratios(self, sums)
        if not logged.keys() & {"ranking_loss", "unpaired_loss"}:
            logged.pop("pair_loss", None)  # it is the loss
        log_step(self, "reward", logged, batch.portion, shown=("loss", "accuracy"), same=True)
        return total * batch.portion.scale

    def read(self, batch: PairBatch) -> Tensor:
        """The tokens of the texts of each pair, thumb or ranking, whether or not others of the batch have them too."""
        lengths = batch.mask.sum(1)
        parts = [
            amounts((lengths * batch.uses)[rows], batch.uses[rows] > 0, lengths[rows], lengths[rows].max())
            for rows in self.model.groups(batch.mask)
        ]
        return torch.stack(parts).sum(0)

    def _texts(self, batch: PairBatch) -> list[str]:
        decode = self.model.codec.decode
        return [decode(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]

    def _pair_texts(self, batch: PairBatch) -> list[str]:
        texts, pairs = self._texts(batch), zip(batch.chosen.tolist(), batch.rejected.tolist(), strict=True)
        return [f"{texts[chosen]} [rather than] {texts[rejected]}" for chosen, rejected in pairs]

    def _thumb_texts(self, batch: PairBatch) -> list[str]:
        assert batch.thumbs is not None
        texts, thumbs = self._texts(batch), zip(batch.thumbs.text.tolist(), batch.thumbs.label.tolist(), strict=True)
        return [f"{texts[i]} [thumb {'up' if label else 'down'}]" for i, label in thumbs]

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add held-out judgements to the measures."""
        scores = self.model(batch.input_ids, batch.mask, batch.type_ids)
        chosen, rejected, probability = (x[batch.counts] for x in (batch.chosen, batch.rejected, batch.probability))
        gap = scores[chosen] - scores[rejected]
        right = agreement(gap, probability)
        chosen_length, rejected_length = batch.lengths[chosen], batch.lengths[rejected]
        measured = {
            "loss": -probability * logsigmoid(gap) - (1 - probability) * logsigmoid(-gap),
            "accuracy": right,
            "longer_wins": agreement(chosen_length - rejected_length, probability),
            "accuracy_chosen_longer": right[chosen_length > rejected_length],
            "accuracy_chosen_shorter": right[chosen_length < rejected_length],
        }
        if batch.thumbs is not None:
            thumbs = batch.thumbs
            score, label = scores[thumbs.text][thumbs.counts], thumbs.label[thumbs.counts]
            measured["unpaired_loss"] = -label * logsigmoid(score) - (1 - label) * logsigmoid(-score)
            measured["unpaired_accuracy"] = agreement(score, label)
        for name, mean in self.means.items():
            mean.update(measured.get(name, gap[:0]))  # type: ignore[operator]
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
        if pairs.sum():
            results["calibration_error"] = float((confidence - right).abs().sum() / pairs.sum())
        self.log_dict({f"reward/val/{name}": value for name, value in results.items()} | self.total_figures())

    def configure_optimizers(self) -> Any:
        """The optimizer, with a schedule that moves every step."""
        optimizer = optim.fused(
            self.optimizer([p for p in self.model.parameters() if p.requires_grad], lr=self.lr), self.trainer
        )
        schedule = self.schedule(optimizer, optim.training_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
