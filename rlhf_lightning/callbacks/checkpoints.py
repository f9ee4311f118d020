"""Checkpoints to go on from exactly, whenever a training is cut off."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from rlhf_lightning.callbacks.stopping import StopRequest
from rlhf_lightning.errors import Preempted
from rlhf_lightning.stages.timing import apart

STATE, CURVES, BEST = "state.ckpt", "metrics.csv", "best.json"


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint under ``folder``; damaged ones are skipped with a warning."""
    for path in sorted(folder.glob("[0-9]*"), reverse=True):
        damage = _damage(path)
        if damage is None:
            return path
        rank_zero_warn(f"the checkpoint {path} is damaged ({damage}) and is skipped")
    return None


def _damage(path: Path) -> str | None:
    state = path / STATE
    try:
        for file in state.rglob("*.pt") if state.is_dir() else [state]:  # DeepSpeed writes a folder
            with zipfile.ZipFile(file) as archive:  # what torch.save writes, a checksum beside each part
                if broken := archive.testzip():
                    return f"{broken} has a wrong checksum"
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)
    return None


class BestModel(L.Callback):
    """Exports the model whenever the held-out metric is better than it ever was.

    Args:
        folder: the best model so far is in a folder below it, named by its optimizer step.
        metric: name under which the stage logs it.
        mode: ``max`` or ``min``.
        save: writes the model into a folder; called on every rank.

    Attributes:
        step: optimizer steps that the best model had had; None before the first validation.
        batches: batches that it had had.
        score: its metric.
        seen: optimizer steps at the last validation.
    """

    def __init__(self, folder: Path, metric: str, mode: str, save: Callable[[Path], Any]) -> None:
        self.folder, self.metric, self.mode, self.save = folder, metric, mode, save
        self.step: int | None = None
        self.batches = 0
        self.score = float("nan")
        self.last = float("nan")
        self.seen: int | None = None
        self.needed: set[int] = set()

    @property
    def model(self) -> Path | None:
        """Where the best model is."""
        return None if self.step is None else self.folder / f"{self.step:08d}"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare, and export if it is better."""
        value = trainer.callback_metrics.get(self.metric)
        if trainer.sanity_checking or value is None:
            return
        self.seen, self.last = trainer.global_step, float(value)
        gain = self.last - self.score if self.mode == "max" else self.score - self.last
        if self.step is None or gain > 0 or (math.isnan(self.score) and not math.isnan(self.last)):
            self.step, self.score = trainer.global_step, self.last
            self.batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed
            assert self.model is not None
            self.save(self.model)
            self.prune(self.needed)

    def prune(self, needed: set[int]) -> None:
        """Remove models that are no longer the best, but for those of the steps that checkpoints refer to."""
        self.needed = needed
        for path in self.folder.glob("[0-9]*"):
            if int(path.name) not in {self.step, *needed}:
                shutil.rmtree(path, ignore_errors=True)

    def state_dict(self) -> dict[str, Any]:
        """Which is the best."""
        state = {"step": self.step, "score": self.score, "last": self.last, "seen": self.seen}
        return {**state, "batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.step, self.score = state_dict["step"], state_dict["score"]
        self.last, self.seen, self.batches = state_dict["last"], state_dict["seen"], state_dict["batches"]


class Checkpoints(Checkpoint):
    """Saves all that a training needs to go on as if it had never been cut off.

    Beside Lightning's own (weights, optimizer, schedule, progress, callbacks) that is the random state of every rank
    and the curves logged so far. A checkpoint is a folder that is written beside its place and then renamed; older
    ones are deleted only after that. Weights that are not trained are left out.

    Lightning can go on exactly from two places: from the end of a validation, and from before a batch where none was
    due. So those are where it is saved.

    Args:
        folder: where checkpoints go.
        curves: the stage's metrics.csv.
        seconds: least time between two of them.
        keep: how many are kept.
        stop: says whether the training has to end now; then a checkpoint is saved, and `Preempted` raised.
        best: the callback whose models checkpoints refer to.

    Attributes:
        metrics: what had been logged when the checkpoint was saved that the training started from.
    """

    def __init__(
        self,
        folder: Path,
        curves: Path,
        seconds: float,
        keep: int,
        stop: StopRequest | None = None,
        best: BestModel | None = None,
    ) -> None:
        self.folder, self.curves, self.seconds, self.keep = folder, curves, seconds, keep
        self.stop, self.best = stop or StopRequest(), best
        self.metrics: dict[str, float] = {}
        self._random: list[dict[str, Any]] = []
        self._saved = time.monotonic()

    # --- when --------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take up the random numbers where they were."""
        if self._random:
            _set_random(self._random[min(trainer.global_rank, len(self._random) - 1)])
            self._random = []
        self.stop.listen()
        self.stop.training = True
        self._saved = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on being told to stop ends the run at once."""
        self.stop.training = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self.stop.training = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save before a batch, as if it had not been fetched yet."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        since = progress.total.completed if trainer.check_val_every_n_epoch is None else batch_idx
        every = trainer.val_check_batch
        validated = trainer.enable_validation and every is not None and since % every == 0
        accumulating = batch_idx % trainer.accumulate_grad_batches != 0
        if not progress.total.completed or validated or accumulating:
            return
        last, progress.is_last_batch = progress.is_last_batch, False
        progress.total.ready -= 1
        progress.current.ready -= 1
        try:
            with apart(pl_module):
                self._consider(trainer)
        finally:
            progress.total.ready += 1
            progress.current.ready += 1
            progress.is_last_batch = last

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after a validation; not where it ends the training, which Lightning would not know when resumed."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if not trainer.should_stop:
            self._consider(trainer)

    def _consider(self, trainer: L.Trainer) -> None:
        reason = self.stop.reason()
        wanted = torch.tensor([time.monotonic() - self._saved >= self.seconds, reason is not None], dtype=torch.float)
        if trainer.world_size > 1:  # clocks differ, and a signal may reach one rank alone
            wanted = trainer.strategy.reduce(wanted.to(trainer.strategy.root_device), reduce_op="sum")  # type: ignore[assignment]
        if not wanted.any():
            return
        self.save(trainer)
        if wanted[1]:
            raise Preempted(reason or "another rank was told to stop")

    # --- what --------------------------------------------------------------------------------------------------------

    def save(self, trainer: L.Trainer) -> None:
        """Write a checkpoint; called on every rank. A disk that is full costs the checkpoint, not the training."""
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
        name = f"{trainer.fit_loop.epoch_loop.batch_progress.total.completed:08d}"
        beside = self.folder / f".{name}.writing"
        self._random = _gathered(_get_random(), trainer)
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        error: Exception | None = None
        try:
            if trainer.is_global_zero:
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir(parents=True)
        except OSError as failure:
            error = failure
        if trainer.strategy.reduce_boolean_decision(error is None, all=True):
            try:
                _save(trainer, beside / STATE)
                if trainer.is_global_zero:
                    self._put_in_place(beside, self.folder / name)
            except (OSError, RuntimeError) as failure:
                error = failure
        if error is not None:
            shutil.rmtree(beside, ignore_errors=True)
            rank_zero_warn(f"no checkpoint could be written to {self.folder}, the training goes on without: {error}")
        self._random = []
        self._saved = time.monotonic()

    def _put_in_place(self, beside: Path, path: Path) -> None:
        if self.curves.exists():
            shutil.copyfile(self.curves, beside / CURVES)
        if self.best is not None:
            (beside / BEST).write_text(json.dumps(self.best.step), encoding="utf-8")
        for file in beside.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
        kept = sorted(self.folder.glob("[0-9]*"), reverse=True)
        for old in kept[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        if self.best is not None:
            refers = [json.loads((one / BEST).read_text(encoding="utf-8")) for one in kept[: self.keep]]
            self.best.prune({step for step in refers if step is not None})

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out what is not trained: whoever resumes has it already."""
        every = pl_module.named_parameters(remove_duplicate=False)  # tied ones have several names
        frozen = {name for name, weight in every if not weight.requires_grad}
        for name in frozen & set(checkpoint["state_dict"]):
            del checkpoint["state_dict"][name]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Allow for that when it is loaded."""
        pl_module.strict_loading = False

    def state_dict(self) -> dict[str, Any]:
        """Random states of all ranks, and what had been logged."""
        return {"random": self._random, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up; the random states are set when the training begins."""
        self._random, self.metrics = state_dict["random"], state_dict["metrics"]


def _save(trainer: L.Trainer, path: Path) -> None:
    """Let the Trainer write its state. Where that fails, the other ranks wait at the barrier that ends it."""
    try:
        trainer.save_checkpoint(path)
    except (OSError, RuntimeError):
        trainer.strategy.barrier()
        raise


def _get_random() -> dict[str, Any]:
    """The state of every generator of this process, as plain numbers and tensors."""
    kind, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }


def _set_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def _gathered(value: Any, trainer: L.Trainer) -> list[Any]:
    if trainer.world_size == 1:
        return [value]
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, value)
    return parts
