"""A look into a few steps with torch's profiler: which operations take the time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.profiler import ProfilerActivity, profile, schedule

from rlhf_lightning.callbacks.progress import training_batches
from rlhf_lightning.stages.timing import apart

TRACE, TABLE = "trace.json.gz", "profile.txt"

LEAST = 3
"""Steps without which there is nothing to record: one is waited for, one warms up."""

ROWS = 40
"""Operations that the table holds."""


class Profile(L.Callback):
    """Profiles some of the first steps of a training, and is out of the way after them.

    One step is waited for, one warms the profiler up, the next ones are recorded; a validation never is: one that comes
    between two recorded steps ends the recording. Written are a trace, for Perfetto (ui.perfetto.dev) or
    chrome://tracing, and a table of the operations that took the longest. With several processes it is rank zero's.

    Args:
        folder: where the two files go.
        active: steps to record; a round of PPO is one step.

    Attributes:
        told: what there is to say in the end: where the files are, or why there are none after all.
    """

    def __init__(self, folder: Path, active: int = 2) -> None:
        self.folder, self.active = folder, active
        self.told: list[str] = []
        self._profiler: profile | None = None
        self._steps, self._gpu = 0, False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin, on rank zero."""
        self._steps = 0
        if not trainer.is_global_zero:
            return
        for name in (TRACE, TABLE):
            (self.folder / name).unlink(missing_ok=True)  # those of an earlier start would pass for this one's
        total = training_batches(trainer, pl_module)
        if total is not None and total < LEAST:
            rank_zero_warn(
                f"profile=true makes no profile of {self.folder.name}: it takes {LEAST} steps at least, and this "
                f"training has {total}"
            )
            return
        self._gpu = pl_module.device.type == "cuda"
        self._profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._gpu else [])],
            schedule=schedule(wait=1, warmup=1, active=self.active, repeat=1),
            on_trace_ready=self._write,
        )
        self._profiler.start()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The next step: here and not where the last one ended, as a validation may come between."""
        if self._profiler is not None and self._steps:
            with apart(pl_module):
                self._profiler.step()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Stop after the last one; the other ranks wait, so that it is no part of any one's time."""
        self._steps += 1
        if self._steps == 2 + self.active:
            with apart(pl_module):
                self._stop()
                trainer.strategy.barrier()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What a validation does may be many times what a step does, and would fill the memory."""
        if self._steps > 2:
            self._stop()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Too short a training."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Likewise; what there is may tell why."""
        self._stop()

    def _stop(self) -> None:
        profiler, self._profiler = self._profiler, None  # what it recorded goes with it
        if profiler is None:
            return
        profiler.stop()
        if not self.told:
            self.told = [
                f"no profile was made: it takes {LEAST} steps at least, and the training ended after {self._steps}"
            ]

    def _write(self, profiler: profile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        trace, table = self.folder / TRACE, self.folder / TABLE
        profiler.export_chrome_trace(str(trace))
        operations = profiler.key_averages()
        orders = ["self_cpu_time_total", *(["self_cuda_time_total"] if self._gpu else [])]
        tables = [operations.table(sort_by=order, row_limit=ROWS) for order in orders]
        steps = max(self._steps - 2, 1)
        head = f"{steps} step{'s' * (steps > 1)} after the first 2; torch {torch.__version__}, {os.cpu_count()} cores"
        table.write_text("\n\n".join([head, *tables]) + "\n", encoding="utf-8")
        self.told = [f"profile of {steps} step{'s' * (steps > 1)}: {table}", f"trace for ui.perfetto.dev: {trace}"]
