"""Mixed precision: numbers stay finite, weights stay in float32, and PPO's ratio still starts near 1."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_models import demonstrations, length_reward, preferences, reward_model_of, rows

from rlhf_lightning.data.micro_batches import TOKENS
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.stages import PPOModule, RewardModule, SFTModule


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_bf16_mixed(stage: str, kind: str, make_policy, make_trainer, model_dir, monkeypatch) -> None:
    monkeypatch.setitem(TOKENS, "cpu", 20)  # several groups a batch
    policy = make_policy(kind, wild_head=True)
    if stage == "sft":
        module, data = SFTModule(policy, lr=1e-2), SFTDataModule(demonstrations(), [], policy.codec, 2, 2)
    elif stage == "reward":
        scorer = reward_model_of(model_dir(kind))
        module, data = RewardModule(scorer, lr=1e-2), PreferenceDataModule(preferences(), [], scorer.codec, 2, 2)
    else:
        module = PPOModule(policy, {"length": length_reward}, epochs=2, lr=1e-2)
        data = PromptDataModule(rows(), [], policy.codec, 4)
    before = {name: weight.detach().cpu().clone() for name, weight in module.named_parameters()}
    trainer = make_trainer(max_epochs=2, precision="bf16-mixed", limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "distinct" not in name}
    assert all(math.isfinite(value) for value in logged.values()), logged
    assert logged[f"{stage}/bad_steps"] == 0
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in module.parameters())
    assert any(not torch.equal(weight.cpu(), before[name]) for name, weight in module.named_parameters())
    if stage == "ppo":
        assert logged["ppo/logprob_gap"] < 0.1


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize(("precision", "most"), [("32-true", 2e-5), ("bf16-mixed", 0.05)])
def test_the_ratio_starts_at_1(precision: str, most: float, minibatches: int, make_policy, make_trainer) -> None:
    """What the first update says of the tokens is what was said as they were drawn, but for rounding."""
    policy = make_policy("llama", wild_head=True)
    module = PPOModule(policy, {"length": length_reward}, minibatches=minibatches, epochs=1, lr=0.0)
    trainer = make_trainer(max_epochs=1, precision=precision, limit_val_batches=0)
    trainer.fit(module, datamodule=PromptDataModule(rows() * 8, [], policy.codec, 16))
    logged = {name.removeprefix("ppo/"): float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["logprob_gap"] < most
    assert abs(logged["ratio"] - 1) < most
