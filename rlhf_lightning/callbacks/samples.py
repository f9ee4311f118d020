"""What the model answered: gathered for the report, and shown in the loggers."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch

from rlhf_lightning.callbacks.sinks import log_histogram, log_table, shows_more_than_numbers
from rlhf_lightning.data.batches import prompt_batch
from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.stages.evaluate import Sample


def of_all_ranks(samples: list[Sample], trainer: L.Trainer) -> list[Sample]:
    """The samples of every rank, each row once, in the order of the data set; every rank gets all."""
    if trainer.world_size > 1:
        parts: list[list[Sample]] = [[] for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(parts, samples)
        samples = [sample for part in parts for sample in part]
    return [sample for _, sample in sorted({sample.id: sample for sample in samples}.items())]


class CollectSamples(L.Callback):
    """Keeps the samples of a test run, of all ranks, in the order of the data set.

    Attributes:
        samples: filled when the run has ended.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        """Take up a batch."""
        self.samples.extend(outputs["samples"])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the ranks together."""
        self.samples = of_all_ranks(self.samples, trainer)


def _numbers_of(sample: Sample, *measures: str) -> dict[str, float]:
    """An answer's rewards, and those of its measures that are known."""
    return {**sample.scores, **{name: sample.measures[name] for name in measures if name in sample.measures}}


class LogSamples(L.Callback):
    """Shows what the model answers while it is trained, in the loggers that can show more than numbers.

    - ``<stage>/val/samples``: a table of the first held-out prompts that grows by their answers at every validation,
      with the answer of the model that the stage started from, the rewards and the KL. A resumed training goes on with
      the rows of its checkpoint. The table is written anew each time, as W&B's own way of appending to one loses the
      earlier rows of an offline run that is resumed; so when it is long it is written at every tenth of its length.
    - ``<stage>/val/histogram/<name>``: rewards and lengths of all answers of a validation.
    - ``ppo/histogram/score``, ``/length``: those of a round's responses.

    Args:
        stage: first part of the names.
        axis: what has been seen so far, as the stage logs it, such as ``ppo/episodes``: a column of the table.
        n: prompts in the table.
    """

    def __init__(self, stage: str, axis: str | None = None, n: int = 8) -> None:
        self.stage, self.axis, self.n = stage, axis, n
        self.rows: list[dict[str, Any]] = []
        self.before: dict[int, str] = {}
        self._looks, self._written = 0, 0
        self._numbers: dict[str, list[float]] = {}

    # --- what the stage starts from ----------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the model answer before anything is learnt; a training that is resumed has these answers."""
        evaluator, data = getattr(pl_module, "evaluator", None), getattr(trainer, "datamodule", None)
        if evaluator is None or data is None or not shows_more_than_numbers(trainer.loggers):
            return
        if self.before or not data.validation:
            return
        shown = list(enumerate(data.validation))[:: trainer.world_size][: self.n]  # rank zero's share of a batch
        batch = prompt_batch(shown, data.codec)
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():  # the training has the same random numbers
            batch = trainer.strategy.batch_to_device(batch, pl_module.device)
            with trainer.strategy.precision_plugin.val_step_context():
                answers = evaluator.answer(pl_module.policy, batch)
        self.before = {id: text for (id, _), text in zip(shown, answers.texts, strict=True)}

    # --- validation --------------------------------------------------------------------------------------------------

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the first answers of the first batch, and the numbers of all."""
        if outputs is None or trainer.sanity_checking or not shows_more_than_numbers(trainer.loggers):
            return
        for sample in outputs["samples"]:
            for name, value in _numbers_of(sample, "length", "kl").items():
                if math.isfinite(value):
                    self._numbers.setdefault(name, []).append(value)
        if batch_idx:
            return
        seen = getattr(pl_module, "totals", {}).get((self.axis or "").rpartition("/")[2])
        for sample in outputs["samples"][: self.n]:
            self.rows.append(
                {
                    "step": trainer.global_step,
                    **({self.axis.rpartition("/")[2]: seen} if self.axis else {}),
                    "prompt": transcript(sample.row.prompt.text),
                    "reference": " | ".join(sample.row.references),
                    "before": self.before.get(sample.id),
                    "now": sample.completion,
                    **_numbers_of(sample, "kl"),
                }
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table, where it is due, and the histograms."""
        if trainer.sanity_checking or not shows_more_than_numbers(trainer.loggers):
            return
        self._histograms(trainer, f"{self.stage}/val/histogram", self._numbers)
        self._numbers = {}
        self._looks += 1
        if self._looks >= 1.1 * self._written or trainer.state.fn == "validate":  # that comes after the training
            self.write(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Histograms of PPO's responses."""
        if isinstance(outputs, dict) and "scores" in outputs and shows_more_than_numbers(trainer.loggers):
            numbers = {"score": outputs["scores"].tolist(), "length": outputs["lengths"].tolist()}
            self._histograms(trainer, f"{self.stage}/histogram", numbers)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is not yet written."""
        self.write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self.write(trainer)

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, trainer: L.Trainer) -> None:
        """Write the table with all its rows, unless that was done."""
        if self._written == self._looks or not self.rows:
            return
        self._written = self._looks
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        rows = [[row.get(name) for name in columns] for row in self.rows]
        log_table(trainer.loggers, f"{self.stage}/val/samples", columns, rows, _step(trainer))

    def _histograms(self, trainer: L.Trainer, name: str, numbers: dict[str, list[float]]) -> None:
        """Those of all ranks together."""
        parts = [numbers]
        if trainer.world_size > 1:
            parts = [numbers] * trainer.world_size
            torch.distributed.all_gather_object(parts, numbers)
        for quantity in dict.fromkeys(key for part in parts for key in part):
            values = [value for part in parts for value in part.get(quantity, [])]
            if values:
                log_histogram(trainer.loggers, f"{name}/{quantity}", values, _step(trainer))

    def state_dict(self) -> dict[str, Any]:
        """The table so far."""
        return {"rows": self.rows, "before": self.before, "looks": self._looks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.rows, self.before, self._looks = state_dict["rows"], state_dict["before"], state_dict["looks"]


def _step(trainer: L.Trainer) -> int:
    """The step that Lightning's loggers are at: they count optimizer steps, PPO's rounds, from 0."""
    if trainer.lightning_module.automatic_optimization:
        return max(trainer.global_step - 1, 0)
    return max(trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1, 0)
