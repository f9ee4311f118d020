"""A look at a sweep's jobs before one is started: a mistake in the last of them must not surface after the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, open_dict

from rlhf_lightning.early import check_early
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import plain

SIDE_BY_SIDE = ("joblib", "ray")
"""Hydra's launchers whose jobs are one process each, by what their classes' paths hold."""

SHOWN = 3
"""Mistakes told of at once."""


@dataclass(frozen=True)
class Mistake:
    """Why a job can't be run.

    Attributes:
        job: its options.
        reason: in words.
    """

    job: tuple[str, ...]
    reason: str


def mistakes(loader: ConfigLoader, config: DictConfig, jobs: Sequence[Sequence[str]]) -> list[Mistake]:
    """Compose each job and hold its options against what will take them, as the job itself does when it begins.

    Args:
        loader: Hydra's.
        config: the sweep's own, composed.
        jobs: the options of each.

    Raises:
        Hydra's errors for options that can't be composed.
    """
    found = []
    for job in jobs:
        cfg = composed(loader, config, job)
        try:
            check_job(cfg, config.hydra)
        except UserError as error:
            found.append(Mistake(tuple(job), str(error)))
    return found


def composed(loader: ConfigLoader, config: DictConfig, job: Sequence[str]) -> dict[str, Any]:
    """The config of a job as plain values, Hydra's own apart."""
    found = loader.load_sweep_config(config, list(job))
    with open_dict(found):
        del found["hydra"]
    return plain(found)


def check_job(cfg: dict[str, Any], hydra: Mapping[str, Any]) -> None:
    """Refuse options that make no run, or none by the sweep's launcher.

    Args:
        cfg: the job's config.
        hydra: Hydra's part of the sweep's.

    Raises:
        UserError: naming the option and what it may be.
    """
    check_early(cfg)
    from rlhf_lightning.pipeline.options import check_options, processes

    check_options(cfg)
    number, launcher = processes(cfg["trainer"]), str(hydra["launcher"]["_target_"])
    if number > 1 and any(name in launcher for name in SIDE_BY_SIDE):
        chosen = hydra["runtime"]["choices"].get("launcher") or hydra["runtime"]["choices"]["hydra/launcher"]
        raise UserError(
            f"launcher={chosen} gives each job of a sweep one device, and trainer.devices asks for {number}: leave "
            "launcher out (one job after the other, each with its own processes), or use launcher=slurm"
        )


def hopeless(jobs: Sequence[Sequence[str]], found: Sequence[Mistake]) -> bool:
    """Whether an option has a value with which no job can be run: a mistake, and not a corner of a grid where two
    values don't go together.

    >>> grid = [[f"ppo.minibatches={m}", f"ppo.loader.batch_size={b}"] for m in (2, 8) for b in (4, 16)]
    >>> hopeless(grid, [Mistake(tuple(grid[2]), "more minibatches than responses")])
    False
    >>> hopeless(grid, [Mistake(tuple(job), "...") for job in grid[2:]])
    True
    """
    bad = {mistake.job for mistake in found}
    values = {option for job in bad for option in job}
    return any(all(tuple(job) in bad for job in jobs if value in job) for value in values)


def told(jobs: Sequence[Sequence[str]], found: Sequence[Mistake]) -> str:
    """Which of the jobs can't be run and why: each reason once, with the first job that it holds for.

    >>> jobs = [("task=qa", "sft.lr=-1", "seed=0"), ("task=qa", "sft.lr=-1", "seed=1"), ("task=qa", "sft.lr=1")]
    >>> print(told(jobs, [Mistake(job, "sft.lr must be at least 0, not -1") for job in jobs[:2]]))
    2 of 3 jobs of the sweep can't be run:
      sft.lr=-1 seed=0 and 1 more: sft.lr must be at least 0, not -1
    """
    first: dict[str, list[Mistake]] = {}
    for mistake in found:
        first.setdefault(mistake.reason, []).append(mistake)
    common = set(jobs[0]).intersection(*jobs)
    lines = []
    for reason, those in list(first.items())[:SHOWN]:
        own = " ".join(option for option in those[0].job if option not in common)
        others = f"{own} and {len(those) - 1} more: " if len(those) > 1 else f"{own}: " if own else ""
        lines.append(f"\n  {others}{reason}")
    more = f"\n  and {len(first) - SHOWN} more" if len(first) > SHOWN else ""
    return f"{len(found)} of {len(jobs)} jobs of the sweep can't be run:{''.join(lines)}{more}"
