"""Supervised fine-tuning through the Trainer."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import COMPLETIONS, KINDS, batch_of, demonstrations, rows

from rlhf_lightning import SFTDataModule, SFTModule, optim
from rlhf_lightning.metrics import ExactMatch
from rlhf_lightning.models import LoraSpec, Sampling
from rlhf_lightning.stages import Evaluator


@pytest.mark.parametrize("kind", KINDS)
def test_demonstrations_are_learnt_by_heart(kind: str, make_policy, make_trainer) -> None:
    """Checklist 3: after training greedy answers are the completions, and end: EOS is learnt also where pad == eos."""
    policy = make_policy(kind, value_head=False, max_completion=40)
    module = SFTModule(policy, lr=1e-2, schedule=optim.constant)
    data = SFTDataModule(demonstrations(), [], policy.codec, batch_size=4)
    make_trainer(max_epochs=110, gradient_clip_val=1.0).fit(module, datamodule=data)
    answers = policy.eval().complete(batch_of(policy), Sampling(greedy=True))
    assert answers.texts == COMPLETIONS
    assert answers.ended.all()


def test_runs_without_evaluator_or_validation(make_policy, make_trainer) -> None:
    """Plain Python: neither is needed; with validation rows and no evaluator they are skipped."""
    policy = make_policy(value_head=False)
    for validation in ([], rows()):
        trainer = make_trainer(max_epochs=1)
        trainer.fit(SFTModule(policy), datamodule=SFTDataModule(demonstrations(), validation, policy.codec, 2))
        assert trainer.global_step == 2
        assert not any("val" in name for name in trainer.callback_metrics)


def test_validation_is_logged(make_policy, make_trainer) -> None:
    policy = make_policy(value_head=False)
    trainer = make_trainer(max_epochs=1, num_sanity_val_steps=2)
    module = SFTModule(policy, evaluator=Evaluator({"exact_match": ExactMatch()}))
    trainer.fit(module, datamodule=SFTDataModule(demonstrations(), rows(), policy.codec, 2, eval_batch_size=3))
    assert "sft/val/exact_match" in trainer.callback_metrics
    assert policy.training, "training mode is put back"


def test_cosine_ends_at_zero(make_policy, make_trainer) -> None:
    """Checklist 27: the rate is lr at first and 0 at the end, half-way lr / 2."""
    policy, seen = make_policy(value_head=False), []

    class Spy(SFTModule):
        def training_step(self, batch, batch_idx):
            seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            return super().training_step(batch, batch_idx)

    trainer = make_trainer(max_epochs=2)
    trainer.fit(Spy(policy, lr=1e-2), datamodule=SFTDataModule(demonstrations(), [], policy.codec, 2))
    assert seen[0] == 1e-2
    assert seen[2] == pytest.approx(5e-3)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_adapters_alone_are_optimised(make_policy, make_trainer) -> None:
    policy = make_policy(value_head=False, lora=LoraSpec(r=2))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(SFTModule(policy, lr=1e-2), datamodule=SFTDataModule(demonstrations(), [], policy.codec, 4))
    trained = trainer.optimizers[0].param_groups[0]["params"]
    assert len(trained) == sum("lora_" in name for name, _ in policy.named_parameters())


def test_accumulation_keeps_the_optimizer_steps(make_policy, make_trainer) -> None:
    """Checklist 23: two accumulated batches of 2 make one step."""
    policy = make_policy(value_head=False)
    trainer = make_trainer(max_epochs=1, accumulate_grad_batches=2)
    trainer.fit(SFTModule(policy), datamodule=SFTDataModule(demonstrations(), [], policy.codec, 2))
    assert trainer.global_step == 1
    assert torch.isfinite(trainer.callback_metrics["sft/loss"])
