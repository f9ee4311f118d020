"""Jobs as SLURM jobs, or as processes of their own on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from omegaconf import DictConfig

from rlhf_lightning.processes import config_flags


class _Resuming(submitit_launcher.BaseSubmititLauncher):
    """A job that SLURM puts into the queue again goes on with its run; one with several devices starts its processes.

    Both need a command: submitit's process has none of its own, but a pickled function.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives, and remember the command that started the sweep."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.command = [str(Path(sys.argv[0]).absolute()), *config_flags(sys.argv[1:])]

    def __call__(self, *args: Any, **kwargs: Any) -> JobReturn:
        """Run the job, in its own process."""
        sys.argv = list(self.command)
        sys.modules["__main__"].__spec__ = None  # else Lightning starts further processes as `python -m submitit...`
        os.environ["SLURM_JOB_NAME"] = "interactive"  # Lightning's word for: srun has not started all processes
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # as for the command itself: modules of the user's own
        return super().__call__(*args, **kwargs)

    def checkpoint(self, sweep_overrides: list[str], *args: Any, **kwargs: Any) -> Any:
        """The same job once more, to go on from its newest checkpoint."""
        again = [*(o for o in sweep_overrides if not o.startswith("resume=")), "resume=true"]
        return super().checkpoint(again, *args, **kwargs)


class LocalLauncher(_Resuming, submitit_launcher.LocalLauncher):
    """On this machine."""


class SlurmLauncher(_Resuming, submitit_launcher.SlurmLauncher):
    """On a cluster."""
