"""Being told to stop: a scheduler's SIGTERM, or a time budget that is used up."""

from __future__ import annotations

import re
import signal
import threading
import time
from types import FrameType, TracebackType

from rlhf_lightning.errors import Preempted, UserError


def seconds_of(text: str) -> float:
    """Seconds of ``MM:SS``, ``HH:MM:SS`` or ``DD:HH:MM:SS``.

    Raises:
        UserError: for anything else.
    """
    if not re.fullmatch(r"\d+(:\d+){1,3}", text):
        raise UserError(f"max_time={text}: give it as HH:MM:SS or DD:HH:MM:SS, such as max_time=01:30:00")
    units = (1, 60, 3600, 86400)
    return float(sum(int(part) * unit for part, unit in zip(reversed(text.split(":")), units, strict=False)))


class StopRequest:
    """Watches for SIGTERM and the clock while a run goes on; a context manager.

    While a stage trains it only notes what came, and `Checkpoints` asks; otherwise SIGTERM ends the run at once, which
    costs nothing that is not done again from the last finished step.

    Args:
        max_time: the run's time budget, as `seconds_of` takes it; None is no limit.
    """

    def __init__(self, max_time: str | None = None) -> None:
        self.deadline = None if max_time is None else time.monotonic() + seconds_of(max_time)
        self.signalled = False
        self.training = False

    def __enter__(self) -> StopRequest:
        self._old = signal.getsignal(signal.SIGTERM)
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._old)

    def listen(self) -> None:
        """Handle SIGTERM; anew after Lightning has put its own handler in place, which ends a training at once."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
        if not self.training:
            raise Preempted("SIGTERM")

    def reason(self) -> str | None:
        """Why the run has to stop; None if it hasn't."""
        if self.signalled:
            return "SIGTERM"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "max_time is used up"
        return None

    def left(self) -> str | None:
        """The rest of the time budget, as `max_time` is given; None where there is no limit."""
        if self.deadline is None:
            return None
        seconds = max(0, round(self.deadline - time.monotonic()))
        return f"{seconds // 3600}:{seconds % 3600 // 60:02}:{seconds % 60:02}"

    def check(self) -> None:
        """Stop here if told to.

        Raises:
            Preempted: saying why.
        """
        if reason := self.reason():
            raise Preempted(reason)
