"""Supervised fine-tuning on demonstrations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlhf_lightning import optim
from rlhf_lightning.data.batches import PromptBatch, SFTBatch
from rlhf_lightning.data.encoding import Kind
from rlhf_lightning.models.classifier import Classifier
from rlhf_lightning.models.policy import Policy
from rlhf_lightning.stages.evaluate import Evaluator, Sample
from rlhf_lightning.stages.guard import GuardedModule
from rlhf_lightning.stages.logging import log_step
from rlhf_lightning.stages.sharding import shard_parts
from rlhf_lightning.stages.timing import amounts


def sft_amounts(prompts: Tensor, responses: Tensor, counts: Tensor, kind: Kind, joined: bool) -> Tensor:
    """The `amounts` of demonstrations that went through the model together.

    Args:
        prompts, responses: (n,) tokens of each.
        counts: (n,) bool, false where a row only fills up.
        kind: of the model; an encoder reads the prompts alone.
        joined: prompt and response of a row were put together without padding between them (`Policy.token_outputs`).
    """
    p, r = prompts.max(), responses.max()
    if kind == "encoder":
        return amounts(prompts, counts, prompts, p)
    lengths = prompts + responses
    if kind == "seq2seq":  # the decoder is given a start, and not the last token
        return amounts(lengths, counts, lengths, p + r)
    if joined:  # the last token of the longest rows foretells nothing, and isn't fed
        width = (lengths.max() - 1).clamp(min=1)
        return amounts(lengths, counts, lengths.clamp(max=width), width)
    return amounts(lengths, counts, prompts + responses.clamp(max=r - 1), p + r - 1)


class SFTModule(GuardedModule):
    """Next-token loss on completions; for an encoder, cross-entropy of the labels.

    Gradient clipping and accumulation are the Trainer's. Logs ``sft/loss``, ``sft/token_accuracy``, its speed and
    ``sft/examples`` and ``sft/tokens`` seen so far (`TimedModule`), and after each validation ``sft/val/<measure>`` of
    the answers to held-out prompts.

    Args:
        policy: the model to train.
        lr: peak learning rate.
        optimizer: made of the parameters and ``lr``.
        schedule: made of the optimizer and the number of steps.
        evaluator: measures the answers to validation prompts; without one validation is skipped.
        max_bad_steps: steps that can't be taken, for a number that is not finite, at which the training stops.
    """

    def __init__(
        self,
        policy: Policy | Classifier,
        lr: float = 2e-5,
        optimizer: optim.OptimizerFactory = optim.default_optimizer,
        schedule: optim.Schedule = optim.cosine,
        evaluator: Evaluator | None = None,
        max_bad_steps: int = 3,
    ) -> None:
        super().__init__("sft", max_bad_steps)
        self.policy, self.evaluator = policy, evaluator
        self.lr, self.optimizer, self.schedule = lr, optimizer, schedule

    def configure_model(self) -> None:
        """Deal the model out where the strategy is FSDP2."""
        shard_parts(self, self.policy)

    def on_fit_start(self) -> None:
        """Training mode: `from_pretrained` leaves models in inference mode. (Dropout is 0 all the same.)"""
        self.policy.train()

    def training_step(self, batch: SFTBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; over ranks and accumulated batches it averages to that of all their tokens."""
        loss, stats, rows = self.policy.sft_loss(batch)
        self.watch(lambda: self._texts(batch), loss=rows)
        log_step(self, "sft", {"loss": loss.detach(), **stats}, batch.portion, shown=("loss",))
        self.count(examples=batch.portion.real)
        return loss * batch.portion.scale

    def read(self, batch: SFTBatch) -> Tensor:
        """The tokens of prompts and completions, and the positions that the model had for them."""
        plain = isinstance(self.policy, Policy) and self.policy.has_plain_head
        prompts, responses = batch.prompt_mask.sum(1), batch.response_mask.sum(1)
        counts = torch.arange(len(prompts), device=prompts.device) < batch.portion.real
        parts = [
            sft_amounts(
                prompts[rows], responses[rows], counts[rows], self.policy.kind, plain and bool(prompts[rows].all())
            )
            for rows in self.policy.groups(batch.prompt_mask, batch.response_mask)
        ]
        return torch.stack(parts).sum(0)

    def _texts(self, batch: SFTBatch) -> list[str]:
        codec, texts = self.policy.codec, []
        for i in range(len(batch.prompt_ids)):
            prompt = codec.decode(batch.prompt_ids[i, batch.prompt_mask[i]].tolist())
            answer = batch.response_ids[i, batch.response_mask[i]].tolist()
            texts.append(prompt + (codec.labels[answer[0]] if codec.kind == "encoder" else codec.decode(answer)))
        return texts

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, list[Sample]] | None:
        """Answer held-out prompts; the samples go to the callbacks."""
        if self.evaluator is None:
            return None
        return {"samples": self.evaluator.step(self.policy, batch)}

    def on_validation_epoch_end(self) -> None:
        """Log the measures of all batches."""
        if self.evaluator is not None:
            measured = {f"sft/val/{name}": value for name, value in self.evaluator.compute().items()}
            self.log_dict({**measured, **self.total_figures()})

    def configure_optimizers(self) -> Any:
        """The optimizer, with a schedule that moves every step."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = optim.fused(self.optimizer(trained, lr=self.lr), self.trainer)
        schedule = self.schedule(optimizer, optim.training_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
