"""Numbers that are not finite: the step is not taken, the samples are kept, the training stops when it goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import demonstrations, length_reward, preferences, rows

from rlhf_lightning import optim
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import RewardModel
from rlhf_lightning.stages import PPOModule, RewardModule, SFTModule


class Snapshots(L.Callback):
    """Weights, and the optimizer's averages, after each batch."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.averages: list[torch.Tensor] = []
        self.logged: list[dict[str, float]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.weights.append(self._flat(pl_module))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.weights.append(self._flat(pl_module))
        states = trainer.optimizers[0].state.values()
        self.averages.append(torch.cat([state["exp_avg"].flatten() for state in states]) if states else torch.zeros(1))
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    @staticmethod
    def _flat(module: L.LightningModule) -> torch.Tensor:
        return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def spoil(where: str, batches: set[int], base: type) -> type:
    """A stage whose loss, or gradient, is not finite in some batches."""

    class Spoilt(base):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.now = batch_idx
            return super().training_step(batch, batch_idx)

        def watch(self, texts: Any, **numbers: torch.Tensor) -> None:
            if where == "loss" and self.now in batches:
                numbers = {name: values.clone() for name, values in numbers.items()}
                next(iter(numbers.values()))[0] = math.nan
            super().watch(texts, **numbers)

        def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
            if where == "gradient" and self.now in batches:
                next(p for p in self.parameters() if p.grad is not None).grad.flatten()[3] = math.inf
            super().configure_gradient_clipping(*args, **kwargs)

    return Spoilt


def stage(name: str, where: str, batches: set[int], make_policy: Any, model_dir: Any, **options: Any):
    if name == "sft":
        policy = make_policy(value_head=False)
        module = spoil(where, batches, SFTModule)(policy, lr=1e-2, schedule=optim.constant, **options)
        return module, SFTDataModule(demonstrations() * 3, [], policy.codec, 2)
    model = RewardModel.load(str(model_dir("llama")), max_prompt=32, max_completion=12, fresh_head=True)
    module = spoil(where, batches, RewardModule)(model, lr=1e-2, schedule=optim.constant, **options)
    return module, PreferenceDataModule(preferences() * 2, [], model.codec, 3)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("name", ["sft", "reward"])
def test_a_bad_step_is_not_taken(name: str, where: str, make_policy, model_dir, make_trainer, tmp_path: Path) -> None:
    """Neither weights nor the optimizer's averages move; the steps around it are taken."""
    module, data = stage(name, where, {2}, make_policy, model_dir)
    seen = Snapshots()
    with pytest.warns(UserWarning, match=f"not finite in {name}, at optimizer step 3: .*The step is not taken"):
        make_trainer(max_epochs=1, callbacks=[seen], gradient_clip_val=1.0).fit(module, datamodule=data)
    moved = [not torch.equal(a, b) for a, b in zip(seen.weights, seen.weights[1:], strict=False)]
    assert moved == [True, True, False, True, True, True][: len(moved)]
    assert torch.equal(seen.averages[1], seen.averages[2])
    assert torch.isfinite(seen.weights[-1]).all()
    (path,) = (tmp_path / "bad_batch").iterdir()
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["step"] == 2
    number = {"sft": "loss", "reward": "chosen"}[name]
    if where == "loss":
        first, *others = content["samples"]
        assert (first["bad"], first[number]) == ([number], "nan")
        assert len(first["text"]) > 3
        assert all(not sample["bad"] and isinstance(sample[number], float) for sample in others)
    else:
        assert content["gradients"]
        assert not any(sample["bad"] for sample in content["samples"])
    assert module.bad_steps == 1


def test_it_stops_at_the_limit_and_says_why(make_policy, model_dir, make_trainer) -> None:
    module, data = stage("sft", "loss", {1, 3}, make_policy, model_dir, max_bad_steps=2)
    with pytest.raises(UserError) as stopped, pytest.warns(UserWarning, match="not taken"):
        make_trainer(max_epochs=1).fit(module, datamodule=data)
    said = str(stopped.value)
    for part in ("loss of '", "step 2 of 2", "bad_batch", "lower learning rate"):
        assert part in said
    with pytest.raises(UserError, match="at least 1"):
        stage("sft", "loss", set(), make_policy, model_dir, max_bad_steps=0)


def test_bad_steps_are_remembered(make_policy, model_dir) -> None:
    module, _ = stage("sft", "loss", set(), make_policy, model_dir)
    module.bad_steps, checkpoint = 2, {}
    module.on_save_checkpoint(checkpoint)
    again, _ = stage("sft", "loss", set(), make_policy, model_dir)
    again.on_load_checkpoint(checkpoint)
    assert again.bad_steps == 2


def ppo(make_policy, make_trainer, spoilt: Any = None, **options: Any):
    """Four rounds of two optimizer steps; ``spoilt`` may change the module first."""
    policy = make_policy()
    settings = {"lr": 1e-2, "epochs": 2, "schedule": optim.constant}
    module = PPOModule(policy, {"length": length_reward}, **{**settings, **options})
    if spoilt is not None:
        spoilt(module)
    seen = Snapshots()
    trainer = make_trainer(max_epochs=-1, max_steps=8, callbacks=[seen])
    trainer.fit(module, datamodule=PromptDataModule(rows(), [], policy.codec, 4))
    return module, trainer, seen


@pytest.mark.parametrize("quantity", ["ref_logprobs", "values", "score"])
def test_a_round_with_a_bad_number_is_passed_over(
    quantity: str, make_policy, make_trainer, tmp_path, monkeypatch
) -> None:
    """Round 1 of four: no weight moves, nothing is learnt from it; it is counted, and the other three are taken."""
    import dataclasses

    from rlhf_lightning.stages import ppo as room

    original = room.collect

    def collected(*args: Any) -> Any:
        rollout = original(*args)
        if args[-1] != 1:
            return rollout
        name = {"score": "scores"}.get(quantity, quantity)
        values = getattr(rollout, name).clone()
        values[2] = math.nan
        return dataclasses.replace(rollout, **{name: values})

    monkeypatch.setattr(room, "collect", collected)
    with pytest.warns(UserWarning, match=f"not finite in ppo, at optimizer step 3: {quantity} of '"):
        module, trainer, seen = ppo(make_policy, make_trainer)
    moved = [not torch.equal(a, b) for a, b in zip(seen.weights, seen.weights[1:], strict=False)]
    assert moved == [True, False, True, True]
    assert trainer.global_step == 8
    assert (module.bad_steps, module.rounds) == (1, 4)
    (path,) = (tmp_path / "bad_batch").iterdir()
    samples = json.loads(path.read_text())["samples"]
    assert [sample["bad"] for sample in samples] == [[], [], [quantity], []]
    assert all(math.isfinite(value) for value in seen.logged[-1].values())


def test_a_bad_step_within_a_round(make_policy, make_trainer) -> None:
    """The second step of the first round has no finite gradient: it alone is left out, of weights and statistics."""
    calls = []

    def spoilt(module: PPOModule) -> None:
        original = module._loss

        def bad(*args: Any) -> Any:
            loss, stats, logprobs = original(*args)
            calls.append(1)
            if len(calls) == 2:
                loss = loss * math.inf
                stats = {name: value * math.nan for name, value in stats.items()}
            return loss, stats, logprobs

        module._loss = bad  # type: ignore[method-assign]

    with pytest.warns(UserWarning, match="not finite in ppo, at optimizer step 2: loss of '"):
        module, trainer, seen = ppo(make_policy, make_trainer, spoilt)
    assert trainer.global_step == 8
    assert module.bad_steps == 1
    assert all(math.isfinite(value) for logged in seen.logged for value in logged.values())
    assert torch.isfinite(seen.weights[-1]).all()


def test_a_healthy_run_has_no_bad_step(make_policy, make_trainer, tmp_path) -> None:
    module, _, seen = ppo(make_policy, make_trainer)
    assert module.bad_steps == seen.logged[-1]["ppo/bad_steps"] == 0
    assert seen.logged[-1]["ppo/grad_norm"] > 0
    assert not (tmp_path / "bad_batch").exists()
