"""What a stage has seen so far: counted, summed, logged, and gone on with."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import demonstrations, length_reward, preferences, reward_model_of, rows
from lightning.pytorch.loggers import CSVLogger

from rlhf_lightning import (
    PPOModule,
    PreferenceDataModule,
    PromptDataModule,
    RewardModule,
    SFTDataModule,
    SFTModule,
)
from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.stages import Evaluator


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "log" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def tokens_of(codec: Codec) -> int:
    """Of all demonstrations, prompts and completions."""
    return sum(
        len(codec.encode_prompt(row.prompt).ids) + len(codec.encode_completion(row.prompt, row.completion))
        for row in demonstrations()
    )


@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 1), (1, 2), (3, 1)])
def test_demonstrations_and_their_tokens(batch_size, accumulate, make_policy, make_trainer, tmp_path: Path) -> None:
    """A row an optimizer step; a last batch that is not full counts as it is."""
    policy, logger = make_policy(value_head=False), CSVLogger(tmp_path, name="log", version="")
    data = SFTDataModule(demonstrations(), [], policy.codec, batch_size)
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate, "logger": logger, "log_every_n_steps": 1}
    trainer = make_trainer(**options)
    module = SFTModule(policy)
    trainer.fit(module, datamodule=data)
    n = len(demonstrations())
    assert module.totals == {"examples": 2 * n, "tokens": 2 * tokens_of(policy.codec)}
    examples = logged(tmp_path, "sft/examples")
    assert examples == sorted(examples)
    assert (examples[0], examples[-1]) == (batch_size * accumulate, 2 * n)
    assert logged(tmp_path, "sft/tokens")[-1] == 2 * tokens_of(policy.codec)


def test_pairs(model_dir, make_trainer) -> None:
    model = reward_model_of(model_dir("llama"))
    trainer = make_trainer(max_epochs=1)
    module = RewardModule(model)
    trainer.fit(module, datamodule=PreferenceDataModule(preferences(), preferences(), model.codec, 3))
    assert module.totals["pairs"] == len(preferences()) == float(trainer.callback_metrics["reward/pairs"])


def test_episodes_are_prompts_times_responses(make_policy, make_trainer, tmp_path: Path) -> None:
    """Their tokens are those of the responses; validations are logged beside them."""
    policy, logger, drawn = make_policy(), CSVLogger(tmp_path, name="log", version=""), []

    class Spy(PPOModule):
        def statistics(self, rollout):
            drawn.append(int(rollout.response_mask.sum()))
            return super().statistics(rollout)

    module = Spy(policy, {"length": length_reward}, responses_per_prompt=2, epochs=1, evaluator=Evaluator())
    data = PromptDataModule(rows(), rows(), policy.codec, 2)
    options = {"max_epochs": -1, "max_steps": 3, "val_check_interval": 1, "check_val_every_n_epoch": None}
    trainer = make_trainer(**options, logger=logger, log_every_n_steps=1)
    trainer.fit(module, datamodule=data)
    assert module.totals == {"episodes": 3 * 2 * 2, "tokens": sum(drawn)}
    assert logged(tmp_path, "ppo/episodes") == [4, 4, 8, 8, 12, 12]  # a round and its validation


def test_a_resumed_training_counts_on(make_policy, make_trainer, tmp_path: Path) -> None:
    policy = make_policy(value_head=False)

    def fit(epochs: int, start: str | None) -> SFTModule:
        module, trainer = SFTModule(policy), make_trainer(max_epochs=epochs)
        trainer.fit(module, datamodule=SFTDataModule(demonstrations(), [], policy.codec, 2), ckpt_path=start)
        trainer.save_checkpoint(tmp_path / "state.ckpt")
        return module

    once = dict(fit(1, None).totals)
    torch.load(tmp_path / "state.ckpt", weights_only=True)
    assert fit(3, str(tmp_path / "state.ckpt")).totals == {name: 3 * amount for name, amount in once.items()}
