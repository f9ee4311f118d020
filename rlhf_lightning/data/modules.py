"""LightningDataModules over typed rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import lightning as L
import torch
from torch.utils.data import DataLoader, Sampler

from rlhf_lightning.data.batches import encode_sft, pair_batch, prompt_batch, sft_batch
from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.rows import PreferenceRow, PromptRow, SFTRow
from rlhf_lightning.errors import UserError


class LengthGroupedSampler(Sampler[int]):
    """Random order in which rows of like length stand together, so that batches hold little padding.

    Rows are shuffled, cut into chunks of 32 batches, sorted within each chunk, and the batches shuffled again.

    Args:
        lengths: length of each row.
        batch_size: rows a batch, over all ranks.
        seed: of the order; every pass has an order of its own, the same on every rank.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int = 0) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.passes = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.passes)
        self.passes += 1
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        chunk = 32 * self.batch_size
        grouped = [
            i
            for start in range(0, len(order), chunk)
            for i in sorted(order[start : start + chunk], key=lambda i: self.lengths[i])
        ]
        batches = [grouped[start : start + self.batch_size] for start in range(0, len(grouped), self.batch_size)]
        # A short last batch stays last: in the middle it would shift every batch after it.
        whole = [b for b in batches if len(b) == self.batch_size]
        short = [b for b in batches if len(b) < self.batch_size]
        for b in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[b]
        for batch in short:
            yield from batch


def _need(rows: Sequence[object], what: str) -> None:
    if not rows:
        raise UserError(f"there are no {what}")


class _PromptValidation(L.LightningDataModule):
    """Held-out prompts, answered and measured in validation and test."""

    def __init__(self, validation: Sequence[PromptRow], codec: Codec, eval_batch_size: int) -> None:
        super().__init__()
        self.validation, self.codec, self.eval_batch_size = validation, codec, eval_batch_size

    def val_dataloader(self) -> DataLoader | list:
        """Held-out prompts in their order; batches of `PromptBatch`."""
        if not self.validation:
            return []
        collate = partial(prompt_batch, codec=self.codec)
        return DataLoader(list(enumerate(self.validation)), batch_size=self.eval_batch_size, collate_fn=collate)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader | list:
        """The same as for validation."""
        return self.val_dataloader()


class SFTDataModule(_PromptValidation):
    """Demonstrations to imitate, and held-out prompts to answer.

    Args:
        train: demonstrations.
        validation: held-out prompts with references; may be empty.
        codec: of the model that is trained.
        batch_size: demonstrations a step and rank.
        eval_batch_size: prompts a validation step.
        prompt_loss_weight: weight of the prompt tokens' loss; 0 trains on completions alone. Causal models only.
        group_by_length: batches of like lengths.
        seed: of the order.

    Raises:
        UserError: without demonstrations, or for a prompt loss on a model that doesn't read prompts token by token.
    """

    def __init__(
        self,
        train: Sequence[SFTRow],
        validation: Sequence[PromptRow],
        codec: Codec,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        prompt_loss_weight: float = 0.0,
        group_by_length: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(validation, codec, eval_batch_size)
        _need(train, "demonstrations to train on: give data.train, or leave sft out of stages")
        if prompt_loss_weight and codec.kind != "causal":
            raise UserError(f"prompt_loss_weight needs a causal model; this one is {codec.kind}")
        self.train = [encode_sft(row, codec, prompt_loss_weight) for row in train]
        self.batch_size, self.group_by_length, self.seed = batch_size, group_by_length, seed

    def losses(self) -> list[str]:
        """What the limits took off the demonstrations, in words; nothing where all fit."""
        total, told = len(self.train), []
        if shortened := sum(row.shortened for row in self.train):
            told.append(
                f"{shortened} of {total} prompts have more than {self.codec.max_prompt} tokens and are shortened"
            )
        if cut := sum(row.cut for row in self.train):
            told.append(
                f"{cut} of {total} completions have more than {self.codec.max_completion} tokens and lose their end, "
                "which is then not learnt"
            )
        return told

    def train_dataloader(self) -> DataLoader:
        """Batches of `SFTBatch`."""
        ranks = self.trainer.world_size if self.trainer is not None else 1
        lengths = [len(row) for row in self.train] if self.group_by_length else [0] * len(self.train)
        sampler = LengthGroupedSampler(lengths, self.batch_size * ranks, self.seed)
        collate = partial(sft_batch, codec=self.codec)
        return DataLoader(self.train, batch_size=self.batch_size, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]


class PreferenceDataModule(L.LightningDataModule):
    """Preferences to learn a reward from.

    Args:
        train: preferences.
        validation: held-out preferences; may be empty.
        codec: of the reward model.
        batch_size: pairs a step and rank.
        eval_batch_size: pairs a validation step.
        seed: of the order.

    Raises:
        UserError: without preferences.
    """

    def __init__(
        self,
        train: Sequence[PreferenceRow],
        validation: Sequence[PreferenceRow],
        codec: Codec,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _need(train, "preferences to train on: give data.preferences, or leave reward out of stages")
        self.train, self.validation, self.codec = list(train), list(validation), codec
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed

    def train_dataloader(self) -> DataLoader:
        """Batches of `PairBatch`, of like lengths."""
        ranks = self.trainer.world_size if self.trainer is not None else 1
        lengths = [max(len(row.chosen), len(row.rejected)) + len(str(row.prompt.text)) for row in self.train]
        sampler = LengthGroupedSampler(lengths, self.batch_size * ranks, self.seed)
        collate = partial(pair_batch, codec=self.codec)
        return DataLoader(self.train, batch_size=self.batch_size, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader | list:
        """Held-out preferences."""
        if not self.validation:
            return []
        collate = partial(pair_batch, codec=self.codec)
        return DataLoader(self.validation, batch_size=self.eval_batch_size, collate_fn=collate)  # type: ignore[arg-type]


class PromptDataModule(_PromptValidation):
    """Prompts for PPO to answer, shuffled; and held-out prompts.

    Args:
        train: prompts; references and meta travel along to the rewards.
        validation: held-out prompts with references; may be empty.
        codec: of the policy.
        batch_size: prompts an update and rank.
        eval_batch_size: prompts a validation step.
        seed: of the order.

    Raises:
        UserError: with fewer prompts than one batch needs; without any, when they are to be trained on.
    """

    def __init__(
        self,
        train: Sequence[PromptRow],
        validation: Sequence[PromptRow],
        codec: Codec,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(validation, codec, eval_batch_size)
        if 0 < len(train) < batch_size:
            raise UserError(
                f"{len(train)} prompts are fewer than one batch of {batch_size}: lower ppo.loader.batch_size"
            )
        self.train, self.batch_size, self.seed = list(enumerate(train)), batch_size, seed

    def train_dataloader(self) -> DataLoader:
        """Batches of `PromptBatch`, all of ``batch_size``."""
        _need(self.train, "prompts to answer: give data.prompts or data.train, or leave ppo out of stages")
        ranks = self.trainer.world_size if self.trainer is not None else 1
        if len(self.train) < self.batch_size * ranks:
            raise UserError(
                f"{len(self.train)} prompts are fewer than one batch of {self.batch_size} on each of {ranks} devices: "
                "lower ppo.loader.batch_size"
            )
        # Under several ranks Lightning puts a DistributedSampler in its place, which keeps the shuffling.
        return DataLoader(
            self.train,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            generator=torch.Generator().manual_seed(self.seed),
            collate_fn=partial(prompt_batch, codec=self.codec),
        )
