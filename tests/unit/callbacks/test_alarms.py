"""Warnings about runs that go wrong while their numbers look fine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_models import length_reward, rows

from rlhf_lightning.callbacks import Alarms
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.models import Sampling
from rlhf_lightning.stages import PPOModule


def look(alarms: Alarms, **measures: float) -> None:
    logged = {f"ppo/{name}": torch.tensor(value) for name, value in measures.items()}
    alarms.on_train_batch_end(SimpleNamespace(callback_metrics=logged))


def test_negative_kl_and_gap_are_told_once() -> None:
    """Checklist 13, 26: a KL clearly below 0, or log-probabilities that don't match; a rounding error is none."""
    alarms = Alarms()
    look(alarms, kl=-0.1, logprob_gap=0.001)
    look(alarms)
    assert alarms.raised == {}
    with pytest.warns(UserWarning, match="KL to the reference is negative"):
        look(alarms, kl=-3.0, logprob_gap=0.0)
    with pytest.warns(UserWarning, match="ratio does not start at 1"):
        look(alarms, kl=-9.0, logprob_gap=0.5)
    assert set(alarms.raised) == {"negative_kl", "logprob_gap"}
    assert "-3.00" in alarms.raised["negative_kl"]


@pytest.mark.parametrize(("top_k", "raised"), [(0, set()), (2, {"negative_kl"})])
def test_truncated_sampling_is_noticed(top_k: int, raised: set, make_policy, make_trainer) -> None:
    """Checklist 13: drawing from the top 2 of another policy than the reference makes the KL negative in a real run.

    The reference has the same tokens on top, more sharply: only truncated samples then have log p < log q throughout.
    """
    policy, alarms = make_policy("llama"), Alarms(kl_tolerance=0.1)
    module = PPOModule(policy, {"length": length_reward}, epochs=1, lr=0.0, temperature=1.0)
    with torch.no_grad():
        module.reference._copy.model.model.norm.weight.mul_(1.5)
    module.sampling = Sampling(temperature=1.0, top_k=top_k)
    data = PromptDataModule(rows() * 8, [], policy.codec, 32)
    make_trainer(max_epochs=1, callbacks=[alarms]).fit(module, datamodule=data)
    assert set(alarms.raised) == raised


def test_training_samples_the_whole_distribution(make_policy) -> None:
    """Checklist 13: PPO draws at 0.7 from all tokens unless told otherwise, and top_k is no option of it."""
    module = PPOModule(make_policy(), {"length": length_reward})
    assert module.sampling == Sampling(greedy=False, temperature=0.7, top_k=0, top_p=1.0)
    with pytest.raises(TypeError):
        PPOModule(make_policy(), {"length": length_reward}, top_k=5)  # type: ignore[call-arg]
