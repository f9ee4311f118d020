"""How long the steps of a stage take, and how much of what goes through its model is padding."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor


def amounts(lengths: Tensor, counts: Tensor, fed: Tensor, width: int | Tensor) -> Tensor:
    """What a batch is made of.

    Args:
        lengths: (b,) tokens of each row.
        counts: (b,) bool, false where a row only fills up.
        fed: (b,) those of its tokens that went through the model.
        width: positions that the model had for each row.

    Returns:
        (3,) the tokens of the rows that count; all positions; those of them that were padding.

    >>> amounts(torch.tensor([3, 5]), torch.tensor([True, True]), torch.tensor([3, 5]), 5)
    tensor([ 8., 10.,  2.])
    """
    positions = len(lengths) * torch.as_tensor(width, device=lengths.device)
    return torch.stack([lengths[counts].sum(), positions, positions - fed.sum()]).float()


def speed(wait: float, step: float, read: Sequence[float] | None) -> dict[str, float]:
    """What is logged of a step.

    Args:
        wait: seconds from the end of the step before to the batch; NaN where there was none before.
        step: seconds from the batch to the end of the step.
        read: its `amounts`, where they are known.

    >>> speed(1.0, 3.0, [8.0, 10.0, 2.0])
    {'seconds/step': 3.0, 'seconds/data': 1.0, 'padding': 0.2, 'tokens_per_second': 2.0}
    """
    figures = {"seconds/step": step}
    follows = not math.isnan(wait)
    if follows:
        figures["seconds/data"] = wait
    if read is not None:
        tokens, positions, padding = read
        figures["padding"] = padding / positions
        if follows:
            figures["tokens_per_second"] = tokens / (wait + step)
    return figures


@dataclass
class Times:
    """What has been timed since the last optimizer step.

    Attributes:
        logged_at: optimizer steps by then.
        ended: when the batch before this one ended; NaN where there was none.
        started: when this batch came.
        wait, step: seconds so far, as in `speed`.
        read: `amounts` so far.
    """

    logged_at: int
    ended: float = math.nan
    started: float = math.nan
    wait: float = 0.0
    step: float = 0.0
    read: Tensor | None = None


class TimedModule(L.LightningModule):
    """A stage that logs where its time goes, and how much it has seen, over all ranks.

    ``<stage>/seconds/data`` is the time from the end of the step before (or of the validation after it) to the batch,
    ``<stage>/seconds/step`` that from there to the end of the step. What callbacks do `apart`, as writing a checkpoint,
    is in neither. Where `read` says what is in a batch, ``<stage>/tokens_per_second`` and ``<stage>/padding`` come with
    them. The first step follows upon none, so its wait and its speed are not logged. Batches that are accumulated are
    one step, and make one figure.

    What a step adds by `count` is summed over steps and ranks, and logged as ``<stage>/<name>``, beside each step and
    each validation: the axes over which trainings of unlike batches can be compared.

    Attributes:
        totals: those sums by name.
    """

    stage: str
    _times: Times

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, int] = {}
        self._counted: dict[str, float] = {}

    def count(self, **amounts: float) -> None:
        """Add to what this rank has seen in the coming step; every rank counts the same names."""
        for name, amount in amounts.items():
            self._counted[name] = self._counted.get(name, 0) + amount

    def total_figures(self) -> dict[str, float]:
        """What has been seen so far, as it is logged; without what there was none of."""
        return {f"{self.stage}/{name}": float(amount) for name, amount in self.totals.items() if amount}

    def read(self, batch: Any) -> Tensor | None:
        """The `amounts` of a batch that the model has had; None for a stage that tells its speed itself."""
        return None

    def on_train_start(self) -> None:
        """Nothing has been timed yet."""
        self._times = Times(self.trainer.global_step)

    def on_validation_end(self) -> None:
        """The validation is no part of the wait for the next batch."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._times.ended = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """So much of the time since the last mark was spent on something else."""
        self._times.ended += seconds
        self._times.started += seconds

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The batch is there."""
        times, now = self._times, time.perf_counter()
        times.wait += now - times.ended
        times.started = now

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add up, and log once an optimizer step was taken."""
        times, read = self._times, self.read(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what is still computed belongs to this step
        now = time.perf_counter()
        times.step += now - times.started
        times.ended = now
        if read is not None:
            times.read = read if times.read is None else times.read + read
            self.count(tokens=float(read[0]))
        if self.trainer.global_step > times.logged_at:
            for name, value in self._figures().items():
                self.log(f"{self.stage}/{name}", value, batch_size=1)
            for name, value in self.total_figures().items():
                self.log(name, value, batch_size=1)
            self._times = Times(self.trainer.global_step, now)

    def _figures(self) -> dict[str, float]:
        """The `speed` over all ranks, by one exchange: mean times, and sums of what was read. What was counted is added
        to `totals`."""
        times, (names, amounts) = self._times, (list(self._counted), list(self._counted.values()))
        self._counted = {}
        together = torch.tensor([*amounts, times.wait, times.step], device=self.device)
        if times.read is not None:
            together = torch.cat([together, times.read])
        ranks = self.trainer.world_size
        if ranks > 1:
            together = self.trainer.strategy.reduce(together, reduce_op="sum")  # type: ignore[assignment]
        for name, amount in zip(names, together.tolist(), strict=False):
            self.totals[name] = self.totals.get(name, 0) + round(amount)
        wait, step, *read = together.tolist()[len(names) :]
        return speed(wait / ranks, step / ranks, read or None)


@contextmanager
def apart(module: L.LightningModule) -> Iterator[None]:
    """What is done within it is no part of a training's time, where the module keeps one."""
    begun = time.perf_counter()
    yield
    if isinstance(module, TimedModule):
        module.leave_out(time.perf_counter() - begun)
