"""A look at a sweep's jobs before one is started: a mistake in the last of them must not surface after the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from rlhf_lightning.early import check_early, check_form, check_numbers, check_stages
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import plain

SIDE_BY_SIDE = ("hydra_joblib_launcher", "hydra_ray_launcher")
"""Hydra's plugins whose launchers run jobs beside each other on this screen, each as one process."""

ELSEWHERE = ("SlurmLauncher", "hydra_ray_launcher")
"""Launchers whose jobs may run on machines that have other files than this one."""

SHOWN = 3
"""Mistakes told of at once."""

MOST_TRIED = 16
"""Combinations of other values with which a value is tried out, before a search may begin that perhaps can't use it."""


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
        HydraException, OmegaConfBaseException: for options that can't be composed, which end a sweep in any case.
    """
    found = []
    for job in jobs:
        try:
            check_job(composed(loader, config, job), config.hydra)
        except UserError as error:
            found.append(Mistake(tuple(job), str(error)))
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception as error:  # the job itself will fail by it too
            found.append(Mistake(tuple(job), f"{type(error).__name__}: {error}"))
    return found


def composed(loader: ConfigLoader, config: DictConfig, job: Sequence[str]) -> dict[str, Any]:
    """The config of a job as plain values, Hydra's own apart.

    Raises:
        UserError: for a value that leads nowhere.
        HydraException, OmegaConfBaseException: for options that can't be composed.
    """
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
    launcher = str(hydra["launcher"]["_target_"])
    if any(name in launcher for name in ELSEWHERE):
        check_form(cfg)
        check_stages(cfg)
        check_numbers(cfg)
    else:
        check_early(cfg)
    from rlhf_lightning.pipeline.options import check_options, processes

    check_options(cfg)
    number = processes(cfg["trainer"])
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


def refuse_useless(
    loader: ConfigLoader, config: DictConfig, fixed: Sequence[str], ends: Mapping[str, Sequence[str]]
) -> None:
    """Refuse a search over values of which one can be used in no job, whatever the others are.

    Args:
        loader, config: as for `mistakes`.
        fixed: the options that all jobs have.
        ends: searched option to its values that are tried out.

    Raises:
        UserError: naming the value and why it can't be used.
    """
    known: dict[tuple[str, ...], list[Mistake]] = {}
    for option in [value for values in ends.values() for value in values]:
        tried = list(itertools.islice(_with(option, ends), MOST_TRIED + 1))
        for job in tried[:MOST_TRIED]:
            if job not in known:
                known[job] = mistakes(loader, config, [[*fixed, *job]])
            if not known[job]:
                break
        else:
            if len(tried) <= MOST_TRIED:
                raise UserError(f"no job with {option} can be run: {known[tried[0]][0].reason}\nNone was started.")


def _with(option: str, ends: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Combinations of values with this one among them."""
    return itertools.product(*([option] if option in values else values for values in ends.values()))
