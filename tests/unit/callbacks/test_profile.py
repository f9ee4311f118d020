"""A look into a few steps of a training."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import demonstrations, length_reward, rows
from lightning.pytorch.loggers import CSVLogger

from rlhf_lightning.callbacks import Profile
from rlhf_lightning.data.modules import PromptDataModule, SFTDataModule
from rlhf_lightning.report.curves import read_curves
from rlhf_lightning.stages import Evaluator, PPOModule, SFTModule


def profiled_steps(folder: Path) -> list[str]:
    """Names of the steps in a trace, which has to be readable."""
    with gzip.open(folder / "trace.json.gz", "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    assert any(str(event.get("name", "")).startswith("aten::") for event in events)
    return sorted({event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep")})


def train(make_policy, make_trainer, profile: Profile, held_out: bool = False, **options: Any) -> L.Trainer:
    policy = make_policy(value_head=False)
    trainer = make_trainer(**{"max_epochs": 1, "callbacks": [profile], **options})
    data = SFTDataModule(demonstrations() * 2, rows() if held_out else [], policy.codec, 1)
    trainer.fit(SFTModule(policy, evaluator=Evaluator({})), datamodule=data)
    return trainer


def test_two_steps_are_recorded_and_then_no_more(make_policy, make_trainer, tmp_path) -> None:
    profile, profiling = Profile(tmp_path / "sft"), []

    class Look(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            profiling.append(torch.autograd._profiler_enabled())

    train(make_policy, make_trainer, profile, callbacks=[profile, Look()])
    assert profiling == [False, False, True, True, False, False, False, False]
    assert profile._profiler is None, "what was recorded is let go"
    assert profiled_steps(tmp_path / "sft") == ["ProfilerStep#2", "ProfilerStep#3"]
    table = (tmp_path / "sft" / "profile.txt").read_text(encoding="utf-8")
    assert "aten::mm" in table or "aten::addmm" in table
    assert table.startswith("2 steps after the first 2")
    assert str(tmp_path / "sft" / "profile.txt") in profile.told[0]
    assert str(tmp_path / "sft" / "trace.json.gz") in profile.told[1]


def test_writing_it_is_not_counted_as_a_step(make_policy, make_trainer, tmp_path, monkeypatch) -> None:
    """However long it takes."""
    logger = CSVLogger(tmp_path, name="sft", version="")
    write = Profile._write
    monkeypatch.setattr(Profile, "_write", lambda *args: (write(*args), time.sleep(5)))
    train(make_policy, make_trainer, Profile(tmp_path / "sft"), logger=logger, log_every_n_steps=1)
    curves = read_curves(tmp_path, ["sft"])["sft"]
    assert len(curves["sft/seconds/step"].values) == 8
    assert max(curves["sft/seconds/step"].values + curves["sft/seconds/data"].values) < 4


def test_profiling_changes_no_weight(make_policy, make_trainer, tmp_path) -> None:
    weights = []
    for callbacks in ([], [Profile(tmp_path)]):
        torch.manual_seed(3)
        trainer = train(make_policy, make_trainer, Profile(tmp_path), callbacks=callbacks)
        weights.append(trainer.lightning_module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_round_of_ppo_is_one_step(make_policy, make_trainer, tmp_path) -> None:
    policy, profile = make_policy(), Profile(tmp_path, active=1)
    trainer = make_trainer(max_epochs=1, callbacks=[profile])
    data = PromptDataModule(rows() * 4, [], policy.codec, 4)
    trainer.fit(PPOModule(policy, {"length": length_reward}, epochs=2), datamodule=data)
    assert profiled_steps(tmp_path) == ["ProfilerStep#2"]


def test_a_training_that_ends_early_leaves_what_there_is(make_policy, make_trainer, tmp_path) -> None:
    profile = Profile(tmp_path)
    train(make_policy, make_trainer, profile, max_steps=3)
    assert profiled_steps(tmp_path) == ["ProfilerStep#2"]
    assert "profile of 1 step:" in profile.told[0]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_that_is_too_short_says_so(steps: int, make_policy, make_trainer, tmp_path) -> None:
    profile = Profile(tmp_path)
    (tmp_path / "profile.txt").write_text("of an earlier run")
    with pytest.warns(UserWarning, match=f"at least, and this training has {steps}"):  # at its start
        train(make_policy, make_trainer, profile, max_steps=steps)
    assert profile.told == []  # nor once more
    assert not [*tmp_path.glob("*.txt"), *tmp_path.glob("*.gz")]
    assert not torch.autograd._profiler_enabled()


def test_a_training_that_ends_before_there_is_a_profile_says_so(make_policy, make_trainer, tmp_path) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            trainer.should_stop = True

    profile = Profile(tmp_path)
    train(make_policy, make_trainer, profile, callbacks=[profile, Stop()])
    assert profile.told == ["no profile was made: it takes 3 steps at least, and the training ended after 1"]


def test_a_training_that_fails_leaves_what_there_is(make_policy, make_trainer, tmp_path) -> None:
    profile = Profile(tmp_path)

    class Fail(L.Callback):
        def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        train(make_policy, make_trainer, profile, callbacks=[profile, Fail()])
    assert "ProfilerStep#2" in profiled_steps(tmp_path)
    assert not torch.autograd._profiler_enabled()


def test_a_validation_is_not_recorded(make_policy, make_trainer, tmp_path) -> None:
    """One between the two steps ends the recording."""
    for every, expected in ((2, ["ProfilerStep#2", "ProfilerStep#3"]), (3, ["ProfilerStep#2"])):
        profile, profiling = Profile(tmp_path), []

        class Look(L.Callback):
            def on_validation_batch_start(self, *_: Any, profiling: list[bool] = profiling) -> None:
                profiling.append(torch.autograd._profiler_enabled())

        train(make_policy, make_trainer, profile, True, callbacks=[profile, Look()], val_check_interval=every)
        assert profiled_steps(tmp_path) == expected
        assert profiling
        assert not any(profiling)
