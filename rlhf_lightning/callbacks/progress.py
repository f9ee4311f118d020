"""Progress: a bar on a terminal, lines in a log file; how much is done, of how much, and the time left."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from rlhf_lightning.report.screen import duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

OFTEN, SELDOM, FIRST_MINUTE = 10.0, 60.0, 60.0
"""Least seconds between two lines of a log, during so many seconds and after them."""


def batches_in_all(
    per_epoch: float, epochs: int | None, max_steps: int, steps_per_batch: int | None, accumulate: int = 1
) -> int | None:
    """Batches of a whole training; None where it has no end that is known.

    Args:
        per_epoch: batches of an epoch; infinite where nobody knows.
        epochs: its last epoch; -1 or None where there is none.
        max_steps: its last optimizer step; -1 where there is none.
        steps_per_batch: optimizer steps that a module takes for a batch by itself; None is Lightning's one for every
            ``accumulate`` batches, and one for what is left of them at an epoch's end.

    >>> batches_in_all(36, -1, 160, 4), batches_in_all(36, 9, -1, None), batches_in_all(5, -1, 6, None, accumulate=2)
    (40, 324, 10)
    """
    ends: list[float] = []
    if epochs is not None and epochs >= 0:
        ends.append(per_epoch * epochs)
    if max_steps >= 0:
        if steps_per_batch is not None:
            ends.append(math.ceil(max_steps / steps_per_batch))  # a round is never cut short
        elif math.isfinite(per_epoch) and per_epoch:
            whole, rest = divmod(max_steps, math.ceil(per_epoch / accumulate))
            ends.append(whole * per_epoch + rest * accumulate)
        else:
            ends.append(max_steps * accumulate)
    end = min(ends, default=math.inf)
    return int(end) if math.isfinite(end) else None


@dataclass
class Activity:
    """What is going on, and how far it is.

    Attributes:
        name: what it is: a stage, ``validation``, ``measuring``.
        unit: what is counted: ``round`` or ``batch``.
        total: how many there are; None where nobody knows.
        done: how many are done.
        before: how many were done when it began: those of a training that is resumed.
        began: clock time in seconds.
        look: whether it is a look at held-out rows, of which whoever asked for it has told.
        figures: what else is shown, as text by name.
    """

    name: str
    unit: str
    total: int | None
    began: float
    done: int = 0
    before: int = 0
    look: bool = False
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> str:
        """How far it is, in words.

        >>> Activity("ppo", "round", 40, 0.0, done=12).count, Activity("ppo", "round", None, 0.0, done=1).count
        ('12/40 rounds', '1 round')
        """
        of = self.done if self.total is None else self.total
        words = self.unit if of == 1 else {"round": "rounds", "batch": "batches"}[self.unit]
        return f"{self.done} {words}" if self.total is None else f"{self.done}/{of} {words}"

    def pace(self, now: float) -> float | None:
        """Mean seconds for each since it began, all that came between them included; None before the first."""
        return (now - self.began) / (self.done - self.before) if self.done > self.before else None

    def left(self, now: float) -> str:
        """The time that is left, in words; empty where nobody knows."""
        pace = self.pace(now)
        if pace is None or self.total is None or self.done >= self.total:
            return ""
        return f"{about(pace * (self.total - self.done))} left"

    def line(self, now: float) -> str:
        """All of it as one line.

        >>> Activity("ppo", "round", 40, 0.0, done=12, figures={"reward": "0.31"}).line(25.2)
        'ppo 12/40 rounds, 30 %, reward 0.31, 2.1 s a round, 59 s left'
        """
        parts = [f"{self.name} {self.count}"]
        if self.total:
            parts.append(f"{100 * self.done // self.total} %")
        parts += [f"{name} {value}" for name, value in self.figures.items()]
        if (pace := self.pace(now)) is not None:
            parts.append(f"{pace:.2g} s a {self.unit}" if pace < 10 else f"{duration(pace)} a {self.unit}")
        return ", ".join([*parts, *filter(None, [self.left(now)])])


def about(seconds: float) -> str:
    """A time to come, as exactly as one can tell it.

    >>> about(0.3), about(59.2), about(150), about(7380)
    ('1 s', '59 s', '2 min 30 s', '2 h 3 min')
    """
    return f"{max(round(seconds), 1)} s" if seconds < 59.5 else duration(seconds)


def on_a_terminal() -> bool:
    """Whether what is printed is seen at once by someone whose screen can move the cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")


class Display(Protocol):
    """Shows activities, of which one may go on within another."""

    def begin(self, activity: Activity) -> None:
        """It has begun."""

    def update(self, activity: Activity) -> None:
        """It is further now."""

    def end(self, activity: Activity) -> None:
        """It is over."""


class Lines:
    """Lines for a log file: a training's first and last, and between them one every so often.

    Args:
        write: prints a line.
        clock: tells the time in seconds.
    """

    def __init__(self, write: Callable[[str], Any] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.write = write or (lambda text: print(text, flush=True))
        self.clock = clock
        self._last: float | None = None
        self._said = -1

    def begin(self, activity: Activity) -> None:
        """Nothing is to be said yet."""
        if not activity.look:
            self._last, self._said = None, -1

    def update(self, activity: Activity) -> None:
        """A line where one is due."""
        now = self.clock()
        since = max(activity.began, self._last or activity.began)
        wait = OFTEN if now - activity.began < FIRST_MINUTE else SELDOM
        first = self._last is None and not activity.look
        if first or now - since >= wait:
            self._say(activity, now)

    def end(self, activity: Activity) -> None:
        """The last line of a training; how it stands has not been said yet where others came after the last one."""
        if not activity.look and activity.done != self._said:
            self._say(activity, self.clock())

    def _say(self, activity: Activity, now: float) -> None:
        self.write(activity.line(now))
        self._last = now
        if not activity.look:
            self._said = activity.done


LOOKS = {"validate": "validation", "test": "measuring", "predict": "answering", "sanity_check": "first validation"}
"""What a Trainer does beside training, by its own name for it."""


class Bar:
    """A bar for each activity, on a terminal."""

    def __init__(self) -> None:
        self._progress: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def begin(self, activity: Activity) -> None:
        """Show it below those that go on."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        if self._progress is None:
            told = TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True))
            name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
            self._progress = Progress(name, BarColumn(16), told, console=Console(highlight=False))
            self._progress.start()
        self._tasks[activity.name] = self._progress.add_task(activity.name, total=activity.total, told=activity.count)

    def update(self, activity: Activity) -> None:
        """Move it."""
        if self._progress is not None and activity.name in self._tasks:
            left = activity.left(time.monotonic())
            told = [activity.count, *filter(None, [left]), *(f"{k} {v}" for k, v in activity.figures.items())]
            task = self._tasks[activity.name]
            self._progress.update(task, completed=activity.done, total=activity.total, told=", ".join(told))

    def end(self, activity: Activity) -> None:
        """Take a look at held-out rows away; leave a training's bar as it is in the end."""
        if self._progress is None:
            return
        task = self._tasks.pop(activity.name)
        if activity.look:
            self._progress.remove_task(task)
        if not self._tasks:
            self._progress.stop()
            self._progress = None


class Progress(ProgressBar):
    """Shows how far a training is: batches, or PPO's rounds, with what the module logs for the bar and the time left.

    It counts over the whole training and not an epoch, and goes on counting where a training is resumed. A module
    whose batch takes several optimizer steps, as PPO's round does, says how many in ``steps_per_batch``.

    Args:
        display: where it is shown; None is a `Bar` on a terminal and `Lines` elsewhere.
    """

    def __init__(self, display: Display | None = None) -> None:
        super().__init__()
        self.display: Display = display or (Bar() if on_a_terminal() else Lines())
        self._going: list[Activity] = []
        self._enabled = True

    def disable(self) -> None:
        """Show nothing: on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show it again."""
        self._enabled = True

    # --- training ----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A training begins, or goes on."""
        steps_per_batch = getattr(pl_module, "steps_per_batch", None)
        done = _batches_done(trainer)
        total = training_batches(trainer, pl_module)
        unit = "batch" if steps_per_batch is None else "round"
        name = getattr(pl_module, "stage", "training")
        self._begin(Activity(name, unit, total, time.monotonic(), done, done))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """A batch is done."""
        if not self._going:
            return
        epochs, figures = trainer.max_epochs, {}
        if self._going[0].unit == "batch" and epochs is not None and epochs > 1:
            figures["epoch"] = f"{trainer.current_epoch + 1}/{epochs}"
        figures |= shown(trainer.progress_bar_metrics)
        self._move(_batches_done(trainer), figures)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """It is over."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The screen is given back before anyone says why."""
        while self._going:
            self._end()

    # --- looks at held-out rows --------------------------------------------------------------------------------------

    def _look(self, what: str, batches: list[int | float] | int | float) -> None:
        known = sum(batches) if isinstance(batches, list) else batches
        total = int(known) if math.isfinite(known) else None
        self._begin(Activity(LOOKS[what], "batch", total, time.monotonic(), look=True))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Held-out rows are looked at."""
        if trainer.sanity_checking:
            self._look("sanity_check", trainer.num_sanity_val_batches)
        else:
            self._look("validate", trainer.num_val_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """A batch of them is done."""
        self._next()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All are."""
        self._end()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test prompts are answered."""
        self._look("test", trainer.num_test_batches)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """A batch of them is."""
        self._next()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All are."""
        self._end()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prompts are answered."""
        self._look("predict", trainer.num_predict_batches)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """A batch of them is."""
        self._next()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All are."""
        self._end()

    # -----------------------------------------------------------------------------------------------------------------

    def _begin(self, activity: Activity) -> None:
        if self._enabled:
            self._going.append(activity)
            self.display.begin(activity)

    def _next(self) -> None:
        if self._going:
            self._move(self._going[-1].done + 1, {})

    def _move(self, done: int, figures: dict[str, str]) -> None:
        activity = self._going[-1]
        activity.done, activity.figures = done, figures
        self.display.update(activity)

    def _end(self) -> None:
        if self._going:
            self.display.end(self._going.pop())


def training_batches(trainer: Trainer, module: LightningModule) -> int | None:
    """Batches of a training that is about to begin, as `batches_in_all`."""
    return batches_in_all(
        trainer.num_training_batches,
        trainer.max_epochs,
        trainer.max_steps,
        getattr(module, "steps_per_batch", None),
        trainer.accumulate_grad_batches,
    )


def _batches_done(trainer: Trainer) -> int:
    """Batches of the whole training that have been trained on, the one that just ends included."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]


SHOWN_FIRST = ("reward", "kl", "loss", "accuracy")


def shown(logged: dict[str, Any]) -> dict[str, str]:
    """What modules log for the bar, by its last name; the score of PPO's responses is the reward that people mean.

    Of what is next to nothing, such as the first round's KL, the digits are rounding errors.

    >>> shown({"ppo/length": 7.25, "ppo/kl": -1.1e-06, "ppo/score": 0.3149})
    {'reward': '0.315', 'kl': '0', 'length': '7.25'}
    """
    names = {name: name.rpartition("/")[2] for name in logged}
    figures = {
        "reward" if last == "score" else last: f"{round(float(logged[name]), 5) + 0:.3g}"
        for name, last in names.items()
    }
    return {name: figures[name] for name in [*(n for n in SHOWN_FIRST if n in figures), *figures]}
