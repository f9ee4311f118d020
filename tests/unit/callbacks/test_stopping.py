"""SIGTERM and time budgets."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.callbacks.stopping import seconds_of
from rlhf_lightning.errors import Preempted, UserError


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:30", 30), ("01:30:00", 5400), ("1:00:00:01", 86401), ("00:00:00:00", 0)]
)
def test_budgets(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["90", "1h", "1:2:3:4:5", "-1:00", "::", "01:30:00.5", ""])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="HH:MM:SS"):
        seconds_of(text)


def test_sigterm_ends_at_once_but_for_a_training() -> None:
    old = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.check()
        stop.training = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.reason() == "SIGTERM"
        stop.training = False
        with pytest.raises(Preempted, match="SIGTERM"):
            stop.check()
    with StopRequest() as stop, pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is old


def test_a_budget_runs_out() -> None:
    assert StopRequest("01:00").reason() is None
    stop = StopRequest("00:00")
    with pytest.raises(Preempted, match="max_time is used up"):
        stop.check()
