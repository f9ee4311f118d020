"""What all launchers of a sweep's jobs have in common: a look at the jobs before one is started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.errors import UserError

PACKAGE = "hydra_plugins.rlhf_lightning"
"""What configs call our plugins' package: Hydra takes plugins from below ``hydra_plugins`` alone."""

MODULES = {
    "JoblibLauncher": "with_joblib",
    "LocalLauncher": "with_submitit",
    "SlurmLauncher": "with_submitit",
    "RayLauncher": "with_ray",
}
"""Launcher to the module that holds it; it can be imported where its plugin is installed."""


class OneDevice(Launcher):
    """For launchers whose jobs are one process each."""

    hydra_context: HydraContext | None
    config: DictConfig | None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start the jobs.

        Raises:
            UserError: if one of them asks for several devices.
        """
        from rlhf_lightning.pipeline.options import processes

        assert self.hydra_context is not None
        assert self.config is not None
        for overrides in job_overrides:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            number = processes(OmegaConf.to_container(composed.trainer))  # type: ignore[arg-type]
            if number > 1:
                chosen = self.config.hydra.runtime.choices.launcher
                raise UserError(
                    f"launcher={chosen} gives each job of a sweep one device, and trainer.devices asks for {number}: "
                    "leave launcher out (one job after the other, each with its own processes), or use launcher=slurm"
                )
        return super().launch(job_overrides, initial_job_idx)  # type: ignore[safe-super]


def jobs_at_once(launcher: Mapping[str, Any]) -> int:
    """How many jobs a launcher runs at the same time, by its config; 1 where that doesn't say."""
    jobs = launcher.get("n_jobs") or launcher.get("array_parallelism") or 1
    return os.cpu_count() or 1 if jobs < 0 else int(jobs)


def cores_for_each(jobs: int) -> str:
    """Each job's share of the machine's cores, for ``OMP_NUM_THREADS``.

    >>> cores_for_each(10_000)
    '1'
    """
    return str(max(1, (os.cpu_count() or 1) // jobs) if jobs > 0 else 1)


def register_launchers() -> None:
    """Make the launchers known to Hydra whose plugins are installed."""
    plugins = Plugins.instance()
    for name, module in MODULES.items():
        try:
            found = getattr(import_module(f"rlhf_lightning.sweep.{module}"), name)
        except ImportError:
            continue  # asked for, it is refused with the name of the extra: its config can't be composed
        plugins.class_name_to_class[f"{PACKAGE}.{name}"] = found
