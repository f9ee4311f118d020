"""Progress, as lines of a log and as a bar."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from rlhf_lightning.callbacks.progress import (
    OFTEN,
    SELDOM,
    Activity,
    Bar,
    Lines,
    Progress,
    batches_in_all,
    on_a_terminal,
)


class Module(L.LightningModule):
    """One optimizer step a batch; with ``manual`` four, as a round of PPO takes several."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.automatic_optimization = not manual
        if manual:
            self.steps_per_batch = 4

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor | None:
        self.log("sft/loss", 0.12345, prog_bar=True)
        if self.automatic_optimization:
            return self.layer(batch).sum()
        for _ in range(4):
            self.optimizers().step()
        return None

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorder:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, activity: Activity) -> None:
        self.told.append(f"begin {activity.name} {activity.count}")

    def update(self, activity: Activity) -> None:
        self.told.append(f"{activity.name} {activity.count}")

    def end(self, activity: Activity) -> None:
        self.told.append(f"end {activity.name}")


def train(folder: Path, display: object, manual: bool = False, rows: int = 3, **options: object) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu", callbacks=[Progress(display)], logger=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    loader = DataLoader(torch.ones(rows, 1), batch_size=1)
    trainer.fit(Module(manual), loader, loader if options.get("limit_val_batches", 0) else None)
    return trainer


@pytest.mark.parametrize(
    ("manual", "options", "count"),
    [
        (True, {"max_epochs": -1, "max_steps": 16}, "4 rounds"),  # 4 rounds of 4 steps, over 2 epochs
        (True, {"max_epochs": -1, "max_steps": 14}, "4 rounds"),  # a round is never cut short
        (False, {"max_epochs": 2}, "6 batches"),
        (False, {"max_epochs": 2, "max_steps": 4}, "4 batches"),
        (False, {"max_epochs": 2, "accumulate_grad_batches": 2}, "6 batches"),
        (False, {"max_epochs": 9, "max_steps": 3, "accumulate_grad_batches": 2}, "5 batches"),  # 2 steps an epoch
    ],
)
def test_the_end_that_is_foretold_is_the_end(manual: bool, options: dict, count: str, tmp_path: Path) -> None:
    seen = Recorder()
    train(tmp_path, seen, manual, **options)
    total = int(count.split()[0])
    assert seen.told == [
        f"begin training 0/{count}",
        *(f"training {i}/{count}" for i in range(1, total + 1)),
        "end training",
    ]


def test_a_training_that_is_resumed_goes_on_counting(tmp_path: Path) -> None:
    class Save(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *args: object) -> None:
            if trainer.global_step == 8:
                progress = trainer.fit_loop.epoch_loop.batch_progress
                progress.total.ready -= 1  # as our own checkpoints do: the batch is still to come
                progress.current.ready -= 1
                trainer.save_checkpoint(tmp_path / "a.ckpt")
                progress.total.ready += 1
                progress.current.ready += 1

    options = {"accelerator": "cpu", "logger": False, "enable_model_summary": False, "enable_checkpointing": False,
               "max_epochs": -1, "max_steps": 16}  # fmt: skip
    loader = DataLoader(torch.ones(9, 1), batch_size=1)
    L.Trainer(callbacks=[Save(), Progress(Recorder())], **options).fit(Module(manual=True), loader)
    seen = Recorder()
    trainer = L.Trainer(callbacks=[Progress(seen)], **options)
    trainer.fit(Module(manual=True), loader, ckpt_path=tmp_path / "a.ckpt")
    assert seen.told[:2] == ["begin training 2/4 rounds", "training 3/4 rounds"]
    assert seen.told[-2:] == ["training 4/4 rounds", "end training"]


@given(
    per_epoch=st.integers(1, 7), epochs=st.integers(1, 4), max_steps=st.integers(1, 30), accumulate=st.integers(1, 4)
)
def test_batches_are_counted_as_the_trainer_takes_steps(
    per_epoch: int, epochs: int, max_steps: int, accumulate: int
) -> None:
    steps, batches = 0, 0
    for _ in range(epochs):
        for i in range(1, per_epoch + 1):
            if steps == max_steps:
                break
            batches += 1
            steps += i % accumulate == 0 or i == per_epoch
    assert batches_in_all(per_epoch, epochs, max_steps, None, accumulate) == batches


def test_no_end_is_known_of_a_training_without_one() -> None:
    assert batches_in_all(10, -1, -1, None) is None
    assert batches_in_all(float("inf"), 3, -1, None) is None
    assert Activity("training", "batch", None, 0.0, done=3).line(3.0) == "training 3 batches, 1 s a batch"


def test_held_out_rows_are_shown_within_and_the_screen_is_given_back(tmp_path: Path) -> None:
    seen = Recorder()
    train(tmp_path, seen, max_epochs=1, limit_val_batches=2)
    assert seen.told[-6:] == [
        "training 3/3 batches",
        "begin validation 0/2 batches",
        "validation 1/2 batches",
        "validation 2/2 batches",
        "end validation",
        "end training",
    ]


def test_a_training_that_fails_gives_the_screen_back(tmp_path: Path) -> None:
    class Failing(Module):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            raise ValueError("no")

    seen = Recorder()
    trainer = L.Trainer(accelerator="cpu", callbacks=[Progress(seen)], logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="no"):
        trainer.fit(Failing(), DataLoader(torch.ones(3, 1)))
    assert seen.told[-1] == "end training"


def lines(seconds: list[float], look: bool = False) -> list[str]:
    """The lines written where each unit takes so long."""
    written: list[str] = []
    now = 0.0
    shown = Lines(written.append, lambda: now)
    activity = Activity("ppo", "round", len(seconds), 0.0, look=look)
    shown.begin(activity)
    for took in seconds:
        now += took
        activity.done += 1
        shown.update(activity)
    shown.end(activity)
    return written


def test_the_first_and_the_last_line_of_a_short_training() -> None:
    assert lines([1.0] * 5) == ["ppo 1/5 rounds, 20 %, 1 s a round, 4 s left", "ppo 5/5 rounds, 100 %, 1 s a round"]


def test_lines_come_seldom() -> None:
    counts = [int(line.split()[1].split("/")[0]) for line in lines([1.0] * 300)]
    assert counts == [1, 11, 21, 31, 41, 51, 111, 171, 231, 291, 300]
    assert (OFTEN, SELDOM) == (10.0, 60.0)


def test_a_slow_round_has_a_line_each() -> None:
    assert len(lines([100.0] * 4)) == 4


def test_a_short_look_at_held_out_rows_says_nothing() -> None:
    assert lines([1.0] * 5, look=True) == []
    assert lines([6.0] * 4, look=True) == ["ppo 2/4 rounds, 50 %, 6 s a round, 12 s left",
                                           "ppo 4/4 rounds, 100 %, 6 s a round"]  # fmt: skip


def test_a_log_file_gets_lines_without_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, None, max_epochs=2)
    written = capsys.readouterr().out
    assert "\r" not in written
    assert "\x1b" not in written
    assert "training 1/6 batches, 16 %, epoch 1/2, loss 0.123" in written
    assert "training 6/6 batches, 100 %, epoch 2/2, loss 0.123" in written


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CI", raising=False)
    # Read while it is written: a terminal holds a few kilobytes, and one read gives what has come so far.
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read_to_the_end, ours)
        with os.fdopen(theirs, "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            train(tmp_path, None, max_epochs=2)
        written = reading.result(timeout=60)
    assert "\x1b[" in written
    assert "6/6 batches, epoch 2/2, loss 0.123" in written


def read_to_the_end(terminal: int) -> str:
    """What was written to the other end of ``terminal`` until that was closed (which Linux tells by an error)."""
    written = b""
    with os.fdopen(terminal, "rb", buffering=0) as ours, contextlib.suppress(OSError):
        while part := ours.read(65536):
            written += part
    return written.decode()


def test_what_counts_as_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert on_a_terminal()
    assert isinstance(Progress().display, Bar)
    monkeypatch.setenv("TERM", "dumb")
    assert not on_a_terminal()
    assert isinstance(Progress().display, Lines)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    assert not on_a_terminal()
