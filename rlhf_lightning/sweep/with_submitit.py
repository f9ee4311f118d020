"""Jobs as SLURM jobs, or as processes of their own on this machine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from omegaconf import DictConfig

from rlhf_lightning.processes import config_flags

WARNING = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
"""The signal by which submitit has SLURM tell a job that its time is nearly up."""


def going_on(overrides: list[str]) -> list[str]:
    """A job's overrides, such that it goes on with what is in its folder."""
    return [*(o for o in overrides if not o.startswith("resume=")), "resume=true"]


class _Resuming(submitit_launcher.BaseSubmititLauncher):
    """A job that SLURM puts into the queue again goes on with its run; one with several devices starts its processes.

    Both need a command: submitit's process has none of its own, but a pickled function.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives, and remember the command that started the sweep."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.command = [str(Path(sys.argv[0]).absolute()), *config_flags(sys.argv[1:])]

    def __call__(self, sweep_overrides: list[str], *args: Any, **kwargs: Any) -> JobReturn:
        """Run the job, in its own process; told by SLURM that its time is up, save it and have it put in again."""
        sys.argv = list(self.command)
        sys.modules["__main__"].__spec__ = None  # else Lightning starts further processes as `python -m submitit...`
        os.environ["SLURM_JOB_NAME"] = "interactive"  # Lightning's word for: srun has not started all processes
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # as for the command itself: modules of the user's own
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")):  # SLURM has put it in again by itself
            sweep_overrides = going_on(sweep_overrides)
        told, put_in_again = [], signal.getsignal(WARNING)

        def save_first(number: int, frame: FrameType | None) -> None:
            told.append(number)
            signal.raise_signal(signal.SIGTERM)  # a run saves what it needs and ends

        signal.signal(WARNING, save_first)
        try:
            return super().__call__(sweep_overrides, *args, **kwargs)
        finally:
            if told and callable(put_in_again):
                put_in_again(WARNING, None)  # submitit's own, which ends the process

    def checkpoint(self, sweep_overrides: list[str], *args: Any, **kwargs: Any) -> Any:
        """The same job once more, to go on from its newest checkpoint."""
        return super().checkpoint(going_on(sweep_overrides), *args, **kwargs)


class LocalLauncher(_Resuming, submitit_launcher.LocalLauncher):
    """On this machine."""


class SlurmLauncher(_Resuming, submitit_launcher.SlurmLauncher):
    """On a cluster."""
