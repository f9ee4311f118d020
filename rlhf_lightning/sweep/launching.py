"""Our launchers of a sweep's jobs, and how many jobs and cores there are at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hydra.core.plugins import Plugins

PACKAGE = "hydra_plugins.rlhf_lightning"
"""What configs call our plugins' package: Hydra takes plugins from below ``hydra_plugins`` alone."""

MODULES = {
    "LocalLauncher": "with_submitit",
    "SlurmLauncher": "with_submitit",
}
"""Launcher to the module that holds it; it can be imported where its plugin is installed."""


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
