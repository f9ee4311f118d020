"""Whether PPO learns what it should, and nothing without a signal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_models import KINDS, batch_of, count_of, rows

from rlhf_lightning import optim
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.models import Sampling
from rlhf_lightning.rewards import ConstantReward
from rlhf_lightning.stages import PPOModule

LETTER = "e"


def mean_count(policy, draws: int = 8) -> float:
    """How many e's the policy's sampled responses have on average."""
    batch = batch_of(policy, [row.prompt.text for row in rows()] * draws)
    texts = policy.complete(batch, Sampling(temperature=1.0, seed=123)).texts
    return sum(text.count(LETTER) for text in texts) / len(texts)


def run(policy, reward, make_trainer, updates: int = 20, seed: int = 5, **options) -> PPOModule:
    settings = {
        "epochs": 2,
        "lr": 2e-2,
        "kl_coef": 0.01,
        "temperature": 1.0,
        "schedule": optim.constant,
        "missing_eos_penalty": 0.0,
    }
    module = PPOModule(policy, {"count": reward}, **{**settings, "seed": seed, **options})
    data = PromptDataModule(rows() * 4, [], policy.codec, 16)
    make_trainer(max_epochs=updates).fit(module, datamodule=data)
    return module


@pytest.mark.parametrize("kind", [*KINDS, "separate critic"])
def test_a_real_reward_is_learnt(kind: str, make_policy, make_trainer) -> None:
    """Checklist 30: the count of a letter rises under its own reward, for every shape of model, in 30 updates."""
    options: dict = {}
    if kind == "separate critic":
        policy, options = make_policy("gpt2", value_head=False), {"critic": make_policy("gpt2")}
    else:
        policy = make_policy(kind)
    before = mean_count(policy)
    run(policy, count_of(LETTER), make_trainer, updates=30, **options)
    assert before < 0.7
    assert mean_count(policy) > before + 0.7


def test_the_opposite_reward_is_learnt_too(make_policy, make_trainer) -> None:
    """Checklist 30: with the sign turned the count does not rise (the rise above is no drift of its own)."""
    policy = make_policy("llama")
    before = mean_count(policy)
    negative = count_of(LETTER)
    run(policy, lambda *args: -negative(*args), make_trainer)
    assert mean_count(policy) <= before


def test_a_constant_reward_improves_nothing(make_policy, make_trainer) -> None:
    """Checklist 30: with the same number for every sample the metric stays where it was."""
    policy = make_policy("llama")
    before = mean_count(policy)
    run(policy, ConstantReward(1.0), make_trainer)
    assert mean_count(policy) < before + 0.3


def test_a_constant_reward_moves_nothing(make_policy, make_trainer) -> None:
    """Checklist 30: the critic starts at the constant, so without KL all advantages are 0 and no weight moves."""
    policy = make_policy("llama")
    before = {name: weight.detach().cpu().clone() for name, weight in policy.named_parameters()}
    run(policy, ConstantReward(1.0), make_trainer, updates=3, kl_coef=0.0)
    policy.cpu()
    for name, weight in policy.named_parameters():
        expected = before[name] + (1.0 if name == "value_head.bias" else 0.0)
        torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=0)


def test_a_critic_at_0_starts_at_the_mean_score(make_policy, make_trainer) -> None:
    """Checklist 17: from 0, GAE would pay short responses best; a critic that knows something is left alone."""
    policy = make_policy("llama")
    module = run(policy, ConstantReward(1.0), make_trainer, updates=1, lr=0.0, value_lr=0.0)
    logged = module.trainer.callback_metrics
    assert logged["ppo/values"].item() == 1.0
    rollout = SimpleNamespace(values=torch.tensor([[0.0, 0.3]]))
    assert module.level_values(rollout) is rollout
    assert policy.value_head.bias.item() == 1.0


def test_a_large_kl_coefficient_holds_the_policy_back(make_policy, make_trainer) -> None:
    """Checklist 18: with beta 1 instead of 0 the same trainings, of three seeds, end nearer to where they began."""
    kl = [
        sum(
            run(make_policy("llama"), count_of(LETTER), make_trainer, 12, seed, kl_coef=coef, lr=1e-3)
            .trainer.callback_metrics["ppo/kl_k3"]
            .item()
            for seed in (5, 6, 7)
        )
        for coef in (1.0, 1e-6)
    ]
    assert kl[0] < 0.7 * kl[1]


def test_critic_learns_the_constant(make_policy, make_trainer) -> None:
    """Checklist 17, 25: starting elsewhere the values approach what is really paid."""
    policy = make_policy("llama")
    torch.nn.init.constant_(policy.value_head.bias, -0.5)
    module = run(policy, ConstantReward(1.0), make_trainer, kl_coef=0.0, vf_coef=1.0, lr=5e-3)
    assert module.trainer.callback_metrics["ppo/values"].item() == pytest.approx(1.0, abs=0.3)
