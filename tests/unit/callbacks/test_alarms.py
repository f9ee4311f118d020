"""Warnings about runs that go wrong while their numbers look fine."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_models import length_reward, rows

from rlhf_lightning.callbacks import Alarms
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.models import Sampling
from rlhf_lightning.stages import PPOModule


def look(alarms: Alarms, **measures: float) -> dict[str, float]:
    """One round that logs these; returns what the alarms logged."""
    logged = {f"ppo/{name}": torch.tensor(value) for name, value in {"eos_rate": 1.0, **measures}.items()}
    trainer = SimpleNamespace(callback_metrics=logged, global_step=7, should_stop=False)
    said: dict[str, float] = {}
    module = SimpleNamespace(log=lambda name, value: said.update({name.removeprefix("ppo/alarm/"): value}))
    alarms.on_train_batch_end(trainer, module)
    alarms.stopping = trainer.should_stop
    return said


def validate(alarms: Alarms, metric: float) -> None:
    trainer = SimpleNamespace(
        callback_metrics={"ppo/val/gold": metric}, sanity_checking=False, state=SimpleNamespace(fn="fit")
    )
    alarms.on_validation_end(trainer, SimpleNamespace())


def test_negative_kl_and_gap_are_told_once() -> None:
    """Checklist 13, 26: a KL clearly below 0, or log-probabilities that don't match; a rounding error is none."""
    alarms = Alarms()
    assert not any(look(alarms, kl=-0.1, logprob_gap=0.001).values())
    assert alarms.raised == {}
    with pytest.warns(UserWarning, match="KL to the reference is negative"):
        look(alarms, kl=-3.0, logprob_gap=0.0)
    with pytest.warns(UserWarning, match="ratio does not start at 1"):
        said = look(alarms, kl=-9.0, logprob_gap=0.5)
    assert {name for name, on in said.items() if on} == {"negative_kl", "logprob_gap"} == set(alarms.raised)
    assert "after 7 optimizer steps" in alarms.raised["negative_kl"]
    assert "-3.00" in alarms.raised["negative_kl"]
    assert not any(look(alarms, kl=0.0, logprob_gap=0.0).values()), "what is over is no alarm any more"


@pytest.mark.parametrize(
    ("name", "quantity", "sound", "wrong", "text"),
    [
        ("kl_limit", "kl", [0, 5, 10, 15, 19, 19, 19, 19], [0, 5, 10, 15, 19, 25, 30, 40], "22.2 nats"),
        ("entropy_collapse", "entropy", [2, 2, 2, 2, 1, 0.5, 0.3, 0.3], [2, 2, 2, 2, 0.1, 0.1, 0.2, 0.2], "2 to 0.15"),
        (
            "eos_rate",
            "eos_rate",
            [0.9, 0.9, 0.7, 0.7, 0.5, 0.5, 0.5, 0.5],
            [0.8, 0.8, 0.8, 0.8, 0, 0, 0, 0],
            "from 0.8 to 0.2",
        ),
        ("length", "length", [10, 10, 10, 10, 20, 25, 25, 25], [10, 10, 10, 10, 31, 31, 31, 31], "10 to 31 tokens"),
        ("length", "length", [10, 10, 10, 10, 4, 4, 4, 4], [10, 10, 10, 10, 3, 3, 3, 3], "10 to 3 tokens"),
        ("distinct", "distinct_2", [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.3, 0.3], [0.8] * 4 + [0.2] * 4, "0.8 to 0.2"),
    ],
)
def test_a_quantity_that_goes_wrong_and_one_that_does_not(name, quantity, sound, wrong, text) -> None:
    for values, raised in ((sound, False), (wrong, True)):
        alarms = Alarms()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = [look(alarms, **{quantity: float(value)}) for value in values]
        assert set(alarms.raised) == ({name} if raised else set())
        assert said[-1][name] == float(raised)
        assert not any(said[3].values()), "no alarm at the start"
    assert text in alarms.raised[name]


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_a_reward_that_rises_while_the_metric_falls(mode: str, sign: int) -> None:
    for scores, metrics, raised in (
        ([0.1, 0.4, 0.9], [0.5, 0.6, 0.4], True),
        ([0.1, 0.4, 0.9], [0.5, 0.6, 0.58], False),
        ([0.1, 0.4, 0.3], [0.5, 0.6, 0.4], False),
        ([0.1, 0.4, 0.9], [0.4, 0.5, 0.6], False),
    ):
        alarms = Alarms(held_out=("ppo/val/gold", mode))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for score, metric in zip(scores, metrics, strict=True):
                look(alarms, score=score)
                validate(alarms, sign * metric)
            look(alarms, score=scores[-1])
        assert set(alarms.raised) == ({"reward_up_metric_down"} if raised else set())
        if raised:
            assert "from 0.6 to 0.4" in alarms.raised["reward_up_metric_down"]


@pytest.mark.filterwarnings("ignore:.*alarm")
def test_limits_can_be_turned_off_and_alarms_can_stop() -> None:
    alarms = Alarms({"kl_limit": None, "logprob_gap": 1.0}, stop_on=["negative_kl"])
    assert "kl_limit" not in look(alarms, kl=1000.0, logprob_gap=0.5)
    assert (alarms.raised, alarms.stopping, alarms.stopped_by) == ({}, False, None)
    look(alarms, kl=-5.0)
    assert (alarms.stopping, alarms.stopped_by) == (True, "negative_kl")


@pytest.mark.filterwarnings("ignore:.*alarm")
def test_a_resumed_run_compares_with_the_same_start() -> None:
    values = [10.0, 10.0, 10.0, 10.0, 20.0, 31.0, 40.0, 50.0, 60.0]
    whole, first, second = Alarms(held_out=("ppo/val/gold", "max")), Alarms(), Alarms(held_out=("ppo/val/gold", "max"))
    first.held_out = whole.held_out
    for i, value in enumerate(values):
        if i == 6:
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for alarms in (whole, first if i < 6 else second):
            look(alarms, length=value, score=float(i))
            if i % 2:
                validate(alarms, 1.0 / (1 + i))
    assert second.state_dict() == whole.state_dict()
    assert set(whole.raised) == {"length", "reward_up_metric_down"}


def test_an_alarm_ends_a_training(make_policy, make_trainer) -> None:
    policy, alarms = make_policy("llama"), Alarms({"logprob_gap": 1e-12, "kl_limit": 1e-9}, stop_on=["kl_limit"])
    module = PPOModule(policy, {"length": length_reward}, epochs=1, lr=0.1)
    data = PromptDataModule(rows() * 8, [], policy.codec, 4)
    trainer = make_trainer(max_epochs=1, callbacks=[alarms])
    with pytest.warns(UserWarning, match="alarm kl_limit"):
        trainer.fit(module, datamodule=data)
    assert alarms.stopped_by == "kl_limit"
    assert 1 <= trainer.global_step < 8
    assert trainer.callback_metrics["ppo/alarm/kl_limit"] == 1


@pytest.mark.parametrize(("top_k", "raised"), [(0, set()), (2, {"negative_kl"})])
def test_truncated_sampling_is_noticed(top_k: int, raised: set, make_policy, make_trainer) -> None:
    """Checklist 13: drawing from the top 2 of another policy than the reference makes the KL negative in a real run.

    The reference has the same tokens on top, more sharply: only truncated samples then have log p < log q throughout.
    """
    policy, alarms = make_policy("llama"), Alarms({"negative_kl": 0.1})
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
