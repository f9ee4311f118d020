"""Trainings that are cut off at every place where a checkpoint is saved, against those that were not."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import demonstrations, length_reward, preferences, rows
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger

from rlhf_lightning.callbacks import BestModel, Checkpoints, newest_checkpoint
from rlhf_lightning.callbacks.loggers import restore_curves
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.errors import Preempted
from rlhf_lightning.metrics import ChrF
from rlhf_lightning.models import LoraSpec, RewardModel
from rlhf_lightning.stages import Evaluator, PPOModule, RewardModule, SFTModule


class Cut:
    """Stops a training at its n-th question whether to stop: that is, at the n-th checkpoint."""

    training = False

    def __init__(self, at: int | None) -> None:
        self.at, self.asked = at, 0

    def listen(self) -> None: ...

    def reason(self) -> str | None:
        self.asked += 1
        return "cut" if self.asked == self.at else None


Made = tuple[L.LightningModule, L.LightningDataModule, dict[str, Any], list[L.Callback]]


@pytest.fixture
def stage(make_policy, model_dir) -> Callable[[str], Made]:
    """A stage by its name, new: module, data, options of the Trainer, callbacks."""

    def made(name: str) -> Made:
        metrics = lambda: Evaluator({"chrf": ChrF()})  # noqa: E731
        if name == "reward":
            model = RewardModel.load(str(model_dir("llama")), max_prompt=32, max_completion=12, fresh_head=True)
            torch.manual_seed(1)
            torch.nn.init.normal_(model.model.score.weight)
            data = PreferenceDataModule(preferences(), preferences()[:3], model.codec, 3)
            return RewardModule(model, lr=1e-2), data, {"max_epochs": 3}, []
        kind = "t5" if "seq2seq" in name else "llama"
        torch.manual_seed(1)
        lora = LoraSpec(r=2) if "lora" in name else None
        policy = make_policy(kind, wild_head=name.startswith("ppo"), value_head=name.startswith("ppo"), lora=lora)
        if name.startswith("sft"):
            module = SFTModule(policy, lr=1e-2, evaluator=metrics())
            held = [] if "unmeasured" in name else rows()
            data = SFTDataModule(demonstrations() * 3, held, policy.codec, 2)
            return module, data, {"max_epochs": 2, "accumulate_grad_batches": 2 if "lora" in name else 1}, []
        adaptive = {"kl": "adaptive", "kl_target": 0.1, "kl_horizon": 50}
        module = PPOModule(
            policy, {"length": length_reward}, lr=1e-2, epochs=2, minibatches=2, evaluator=metrics(), **adaptive
        )
        steps = {"max_epochs": -1, "max_steps": 24, "check_val_every_n_epoch": None, "val_check_interval": 2}
        stops = [EarlyStopping("ppo/val/chrf", patience=9, mode="max", check_on_train_epoch_end=False)]
        return module, PromptDataModule(rows() * 2, rows(), policy.codec, 4), steps, stops

    return made


def train(folder: Path, made: Made, cut: int | None = None) -> tuple[dict[str, Any], int]:
    """Train a stage, from its newest checkpoint; gives all that it ends with, and how often it could have been cut."""
    module, data, options, callbacks = made
    saved: list[int] = []
    name = {"SFTModule": "sft", "RewardModule": "reward", "PPOModule": "ppo"}[type(module).__name__]
    metric = "reward/val/accuracy" if name == "reward" else f"{name}/val/chrf"

    def save(path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        saved.append(1)

    best = BestModel(folder / "best", metric, "max", save)
    stop = Cut(cut)
    keeper = Checkpoints(folder / "checkpoints", folder / "log" / "metrics.csv", math.inf, 2, stop, best)  # type: ignore[arg-type]
    logger = CSVLogger(folder, name="log", version="")
    start = newest_checkpoint(keeper.folder)
    if start is not None and (start / "metrics.csv").exists():
        restore_curves(logger, start / "metrics.csv")
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=logger,
        log_every_n_steps=1,
        callbacks=[*callbacks, best, keeper],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=None if start is None else str(start / "state.ckpt"))
    except Preempted:
        return {}, stop.asked
    with (folder / "log" / "metrics.csv").open(newline="") as file:
        curves = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    ended = {
        "weights": {name: weight.detach().clone() for name, weight in module.named_parameters()},
        "optimizer": [s for state in trainer.optimizers[0].state_dict()["state"].values() for s in state.values()],
        "lr": trainer.optimizers[0].param_groups[0]["lr"],
        "steps": trainer.global_step,
        "curves": curves,
        "best": best.state_dict(),
        "random": torch.rand(3),
        "controller": getattr(module, "controller", None) and module.controller.coef,
        "metrics": {
            k: float(v) for k, v in {**keeper.metrics, **trainer.callback_metrics}.items() if "second" not in k
        },
    }
    return ended, stop.asked


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other or (one != one and other != other)


@pytest.mark.parametrize(
    "name", ["sft", "sft unmeasured", "sft seq2seq lora", "reward", "ppo", "ppo seq2seq", "ppo lora"]
)
def test_every_place_to_go_on_from_ends_alike(name: str, stage, tmp_path: Path) -> None:
    """Weights, optimizer, rates, curves, random numbers and the rest are bit for bit those of a whole training."""
    torch.manual_seed(5)
    whole, places = train(tmp_path / "whole", stage(name))
    assert places >= 4, "the test needs places to cut at"
    for place in range(1, places + 1):
        torch.manual_seed(5)
        folder = tmp_path / f"cut{place}"
        assert train(folder, stage(name), cut=place)[0] == {}
        torch.manual_seed(99)  # what a new process begins with does not matter
        rest, _ = train(folder, stage(name))
        assert_same(rest, whole)
        shutil.rmtree(folder)


def test_a_training_can_be_cut_again_and_again(stage, tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole, places = train(tmp_path / "whole", stage("ppo"))
    torch.manual_seed(5)
    for _ in range(places):
        rest, _ = train(tmp_path / "cut", stage("ppo"), cut=2)
        if rest:
            break
    assert_same(rest, whole)


def test_a_damaged_checkpoint_is_skipped_and_old_ones_go(stage, tmp_path: Path) -> None:
    train(tmp_path, stage("ppo"), cut=4)
    keeper = Checkpoints(tmp_path / "checkpoints", tmp_path / "none", 0, 2)
    assert [p.name for p in sorted(keeper.folder.iterdir())] == ["00000004"], "it is saved when due, or when cut"
    older = shutil.copytree(keeper.folder / "00000004", keeper.folder / "00000003")
    assert newest_checkpoint(keeper.folder) == keeper.folder / "00000004"
    state = keeper.folder / "00000004" / "state.ckpt"
    content = bytearray(state.read_bytes())
    for damaged in (content[:-50], content[: len(content) // 2] + b"??" + content[len(content) // 2 + 2 :], b""):
        state.write_bytes(bytes(damaged))
        with pytest.warns(UserWarning, match="00000004 is damaged"):
            assert newest_checkpoint(keeper.folder) == older
    shutil.rmtree(keeper.folder / "00000004")
    (keeper.folder / ".00000009.writing").mkdir()
    assert newest_checkpoint(keeper.folder) == older
    shutil.rmtree(older)
    assert newest_checkpoint(keeper.folder) is None


def test_as_many_are_kept_as_asked_for_and_no_frozen_weight(stage, tmp_path: Path) -> None:
    module, data, options, callbacks = stage("ppo lora")
    keeper = Checkpoints(tmp_path / "checkpoints", tmp_path / "none", 0.0, 3)
    counts = []

    class Count(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            counts.append(len(list((tmp_path / "checkpoints").glob("[0-9]*"))))

    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, Count(), keeper],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, datamodule=data)
    assert max(counts) == counts[-1] == 3
    state = torch.load(newest_checkpoint(keeper.folder) / "state.ckpt", weights_only=True)  # type: ignore[operator]
    trained = {name for name, weight in module.named_parameters(remove_duplicate=False) if weight.requires_grad}
    assert set(state["state_dict"]) == trained
    assert any("lora" in name for name in trained)


def test_a_full_disk_costs_the_checkpoint_alone(stage, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    module, data, options, _ = stage("reward")
    keeper = Checkpoints(tmp_path / "checkpoints", tmp_path / "none", 0.0, 3)
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[keeper], enable_progress_bar=False, **options)
    with pytest.warns(UserWarning, match="no checkpoint could be written"):
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == 9


@pytest.mark.filterwarnings("ignore:no checkpoint could be written")
def test_a_full_disk_leaves_no_rank_waiting(stage, tmp_path: Path) -> None:
    """The rank that writes comes to the barrier that ends Lightning's saving, where the others wait."""
    met = []
    for full in (False, True):
        module, data, options, _ = stage("reward")
        keeper = Checkpoints(tmp_path / str(full), tmp_path / "none", 0.0, 3)
        trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[keeper], enable_progress_bar=False, **options)
        barriers: list[Any] = []

        def write(checkpoint: Any, path: Path, storage_options: Any = None, full: bool = full) -> None:
            if full:
                raise OSError(28, "No space left on device")
            Path(path).write_bytes(b"")

        trainer.strategy.save_checkpoint = write  # type: ignore[method-assign]
        trainer.strategy.barrier = lambda *names, barriers=barriers: barriers.append(names)  # type: ignore[method-assign]
        trainer.fit(module, datamodule=data)
        assert len(list(keeper.folder.iterdir())) == (0 if full else 3)
        met.append(len(barriers))
    assert met[0] == met[1] > 0


class Trained:
    """What a callback asks of a Trainer after a validation."""

    sanity_checking = False

    def __init__(self, step: int, value: float) -> None:
        self.global_step, self.callback_metrics = step, {"val": torch.tensor(value)}
        progress = SimpleNamespace(total=SimpleNamespace(completed=step // 4))
        self.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))


@pytest.mark.parametrize(("mode", "kept"), [("max", [4, 8, 16]), ("min", [4, 12])])
def test_the_best_model_is_exported(mode: str, kept: list[int], tmp_path: Path) -> None:
    made = []
    best = BestModel(tmp_path, "val", mode, lambda path: (made.append(int(path.name)), path.mkdir(parents=True)))
    for step, value in [(4, 1.0), (8, 2.0), (12, 0.5), (16, 3.0), (20, 3.0)]:
        best.on_validation_end(Trained(step, value), None)  # type: ignore[arg-type]
    assert made == kept
    assert [p.name for p in tmp_path.iterdir()] == [f"{kept[-1]:08d}"]
    assert best.step == kept[-1]
    assert (best.seen, best.last) == (20, 3.0)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_metric_that_was_not_a_number_is_beaten_by_one(mode: str, tmp_path: Path) -> None:
    best = BestModel(tmp_path, "val", mode, lambda path: path.mkdir(parents=True))
    for step, value in [(4, float("nan")), (8, 1.0), (12, float("nan"))]:
        best.on_validation_end(Trained(step, value), None)  # type: ignore[arg-type]
    assert (best.step, best.score) == (8, 1.0)


def test_models_that_checkpoints_refer_to_stay(tmp_path: Path) -> None:
    best = BestModel(tmp_path, "val", "max", lambda path: path.mkdir(parents=True))
    best.on_validation_end(Trained(4, 1.0), None)  # type: ignore[arg-type]
    best.prune({4})
    best.on_validation_end(Trained(8, 2.0), None)  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2
    best.prune({8})
    assert [p.name for p in tmp_path.iterdir()] == ["00000008"]
    again = BestModel(tmp_path, "val", "max", lambda path: None)
    again.load_state_dict(json.loads(json.dumps(best.state_dict())))
    assert again.model == tmp_path / "00000008"
