"""LightningDataModules over typed rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from torch.utils.data import DataLoader

from rlhf_lightning.data.batches import encode_sft, pair_batch, prompt_batch, sft_batch
from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.order import EvalOrder, Rows, TrainOrder
from rlhf_lightning.data.rankings import Judged, ranks, together
from rlhf_lightning.data.rows import PreferenceRow, PromptRow, SFTRow
from rlhf_lightning.errors import UserError

Ranking = Literal["pairs", "plackett_luce"]


def check_rankings(rows: Sequence[Judged], ranking: Ranking) -> None:
    """Refuse rankings that can't be learnt in the way that is asked for.

    Raises:
        UserError: as `PreferenceDataModule`.
    """
    elements = together(rows)
    if ranking == "pairs":
        return
    named = [[row for row in rows if isinstance(row, PreferenceRow) and row.group is not None] for rows in elements]
    if not any(named):
        raise UserError(
            "reward.ranking=plackett_luce needs rankings, and no preference is of one: name the column that tells "
            "which pairs are of one ranking (task.format.group), or choose reward.ranking=pairs"
        )
    for pairs in filter(None, named):
        ranks(pairs)


def _need(rows: Sequence[object], what: str) -> None:
    if not rows:
        raise UserError(f"there are no {what}")


class _Module(L.LightningDataModule):
    """Loaders whose batches are dealt out to the Trainer's ranks."""

    codec: Codec
    batch_size: int
    seed: int

    def _ranks(self) -> dict[str, int]:
        trainer = self.trainer
        return (
            {"rank": 0, "world": 1} if trainer is None else {"rank": trainer.global_rank, "world": trainer.world_size}
        )

    def _done(self) -> int:
        """Batches of the current epoch that have been trained on."""
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _train_loader(
        self,
        rows: Sequence[Any],
        collate: Callable[..., Any],
        weights: Sequence[float] | None = None,
        drop_last: bool = False,
    ) -> DataLoader:
        steps = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        sampler = TrainOrder(
            len(rows),
            self.batch_size,
            self.seed,
            **self._ranks(),
            weights=weights,
            accumulate=steps,
            drop_last=drop_last,
            done=self._done,
        )
        return self._loader(rows, sampler, collate)

    def _eval_loader(self, rows: Sequence[Any], collate: Callable[..., Any], batch_size: int) -> DataLoader | list:
        if not rows:
            return []
        return self._loader(rows, EvalOrder(len(rows), batch_size, **self._ranks()), collate)

    def _loader(self, rows: Sequence[Any], sampler: TrainOrder | EvalOrder, collate: Callable[..., Any]) -> DataLoader:
        return DataLoader(
            Rows(rows),
            batch_size=None,
            sampler=sampler,
            collate_fn=lambda fetched: collate(fetched[0], self.codec, fetched[1]),
            generator=torch.Generator(),  # without it a number of the global one is drawn whenever this is iterated
        )


class _PromptValidation(_Module):
    """Held-out prompts, answered in validation, test and prediction."""

    def __init__(self, validation: Sequence[PromptRow], codec: Codec, eval_batch_size: int) -> None:
        super().__init__()
        self.validation, self.codec, self.eval_batch_size = validation, codec, eval_batch_size

    def val_dataloader(self) -> DataLoader | list:
        """Held-out prompts in their order; batches of `PromptBatch`."""
        return self._eval_loader(list(enumerate(self.validation)), prompt_batch, self.eval_batch_size)

    def test_dataloader(self) -> DataLoader | list:
        """The same as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader | list:
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
        seed: int = 0,
    ) -> None:
        super().__init__(validation, codec, eval_batch_size)
        _need(train, "demonstrations to train on: give data.train, or leave sft out of stages")
        if prompt_loss_weight and codec.kind != "causal":
            raise UserError(f"prompt_loss_weight needs a causal model; this one is {codec.kind}")
        self.train = [encode_sft(row, codec, prompt_loss_weight) for row in train]
        self.batch_size, self.seed = batch_size, seed

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
        return self._train_loader(self.train, sft_batch, [row.weight for row in self.train])


class PreferenceDataModule(_Module):
    """Preferences to learn a reward from: pairs, rankings, and completions with a thumb up or down.

    Batches are made of elements, in one random order: a pair, a thumb, or a ranking with all of its pairs (as in
    InstructGPT, Ouyang et al., 2022, arXiv:2203.02155, 3.5). So a ranking is never split, whatever the number of ranks
    or accumulated batches; but a batch of rankings of k completions holds k texts an element, and not two.

    Args:
        train: preferences.
        validation: held-out preferences; may be empty.
        codec: of the reward model.
        batch_size: elements a step and rank.
        eval_batch_size: elements a validation step.
        seed: of the order.
        ranking: learn a ranking by its ``pairs``, or as such (``plackett_luce``; `algorithms.plackett_luce_loss`).

    Raises:
        UserError: without preferences; for a ranking over several prompts, or one that is no order and should be
            learnt as such (`ranks`); for ``plackett_luce`` without a ranking.
    """

    def __init__(
        self,
        train: Sequence[Judged],
        validation: Sequence[Judged],
        codec: Codec,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        seed: int = 0,
        ranking: Ranking = "pairs",
    ) -> None:
        super().__init__()
        _need(train, "preferences to train on: give data.preferences or data.unpaired, or leave reward out of stages")
        check_rankings(train, ranking)
        self.train, self.validation, self.codec = together(train), together(validation), codec
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.ranking = ranking

    def train_dataloader(self) -> DataLoader:
        """Batches of `PairBatch`."""
        collate = partial(pair_batch, plackett_luce=self.ranking == "plackett_luce")
        return self._train_loader(self.train, collate, [sum(row.weight for row in rows) for rows in self.train])

    def val_dataloader(self) -> DataLoader | list:
        """Held-out preferences; rankings are looked at by their pairs."""
        return self._eval_loader(self.validation, pair_batch, self.eval_batch_size)


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
        ranks = self._ranks()["world"]
        if len(self.train) < self.batch_size * ranks:
            raise UserError(
                f"{len(self.train)} prompts are fewer than one batch of {self.batch_size} on each of {ranks} devices: "
                "lower ppo.loader.batch_size"
            )
        return self._train_loader(self.train, prompt_batch, drop_last=True)
