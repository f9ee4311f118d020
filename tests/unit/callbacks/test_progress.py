"""The progress bar."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from rlhf_lightning.callbacks import Progress


def bar(steps_per_batch: int | None = None, done: int = 0, **trainer: object) -> Progress:
    made = Progress()
    module = SimpleNamespace() if steps_per_batch is None else SimpleNamespace(steps_per_batch=steps_per_batch)
    progress = SimpleNamespace(current=SimpleNamespace(completed=done))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    defaults = {"num_training_batches": 36, "max_steps": -1, "max_epochs": -1, "global_step": 0, "fit_loop": loop}
    made._trainer = SimpleNamespace(
        **{**defaults, "accumulate_grad_batches": 1, "lightning_module": module, "loggers": [], **trainer}
    )
    return made


@pytest.mark.parametrize(
    ("steps_per_batch", "trainer", "total"),
    [
        (None, {}, 36),
        (4, {"max_steps": 160}, 36),  # PPO: 40 rounds of 4 steps, over 36 batches of prompts
        (4, {"max_steps": 160, "global_step": 144}, 4),
        (4, {"max_steps": 160, "global_step": 148, "done": 10}, 13),  # the bar counts from the epoch's start
        (4, {"max_steps": 160, "global_step": 144, "done": 36}, 4),  # the epoch before is over
        (4, {"max_steps": 6}, 2),  # a round is never cut short
        (None, {"max_steps": 10}, 10),
        (None, {"max_steps": 10, "accumulate_grad_batches": 2}, 20),
    ],
)
def test_end_of_the_bar(steps_per_batch: int | None, trainer: dict, total: int) -> None:
    assert bar(steps_per_batch, **trainer).total_train_batches == total


@pytest.mark.parametrize(("max_epochs", "text"), [(9, "Epoch 2/9"), (-1, "Epoch 2"), (None, "Epoch 2")])
def test_epochs_are_counted_from_1(max_epochs: int | None, text: str) -> None:
    assert bar(max_epochs=max_epochs)._get_train_description(1).rstrip() == text


def test_lightning_asks_the_bar(tmp_path) -> None:
    """The names overridden here are those that Lightning's own bar calls."""

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return self.layer(batch).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Recorder(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
            task = trainer.progress_bar_callback.train_progress_bar
            seen.append((task.description.strip(), task.total))

    seen: list[tuple[str, float]] = []
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=5, callbacks=[Progress(), Recorder()], logger=False,
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(torch.ones(3, 1), batch_size=1))
    assert [text for text, _ in seen] == ["Epoch 1"] * 3 + ["Epoch 2"] * 2
    assert [total for _, total in seen] == [3, 3, 3, 2, 2]
