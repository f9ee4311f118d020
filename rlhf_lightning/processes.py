"""Several processes that are one run: those that torchrun or srun start, and those of each job of a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rlhf_lightning.errors import Preempted, UserError

T = TypeVar("T")

RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def started_together() -> bool:
    """Whether torchrun or srun started this process beside others."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS", "1")
    by_srun = "SLURM_PROCID" in os.environ and int(tasks) > 1
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return by_torchrun or by_srun


def join() -> None:
    """Connect to the processes that were started together with this one; Lightning finds the connection and uses it.

    It is needed before Lightning would make it: all of them have to agree on the run folder first.
    """
    import torch
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    found: Any = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = found.main_address, str(found.main_port)
    torch.distributed.init_process_group(rank=found.global_rank(), world_size=found.world_size())


def leave() -> None:
    """End the connection, if there is one."""
    if (connected := _connection()) is not None:
        connected.destroy_process_group()


def _connection() -> Any:
    """`torch.distributed` where processes are connected, else None; torch is not loaded for it."""
    torch = sys.modules.get("torch")
    if torch is None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    return torch.distributed


def agreed(choose: Callable[[], str]) -> str:
    """What rank zero chooses; without a connection each process chooses for itself."""
    connected = _connection()
    if connected is None:
        return choose()
    told = [choose() if connected.get_rank() == 0 else ""]
    connected.broadcast_object_list(told)
    return told[0]


def gathered(own: T) -> list[T]:
    """What each connected process has, in their order; without a connection this one's alone."""
    connected = _connection()
    if connected is None:
        return [own]
    parts = [own] * connected.get_world_size()
    connected.all_gather_object(parts, own)
    return parts


def together(work: Callable[[], T]) -> T:
    """What each connected process makes of its own part; where one fails all do, and none waits for it in vain.

    Raises:
        UserError: for whatever failed on another process; what failed on this one is raised as it is.
    """
    failed: Exception | None = None
    try:
        made = work()
    except Exception as error:
        failed = error
    told = gathered("" if failed is None else str(failed) or type(failed).__name__)
    if failed is not None:
        raise failed
    if reason := next(filter(None, told), None):
        raise UserError(reason)
    return made


def is_first() -> bool:
    """Whether this is rank zero of the connected processes, or is connected to none."""
    connected = _connection()
    return connected is None or connected.get_rank() == 0


def wait_for_all() -> None:
    """Go on when every connected process has come here."""
    agreed(lambda: "")


GOES_ON = "goes on"


def first_alone(work: Callable[[Callable[[], None]], None], is_first: bool) -> None:
    """Have rank zero do what may take days, while the others wait, who fail if it does.

    No exchange between processes may last longer than 10 to 30 minutes; so the others are told that it goes on.

    Args:
        work: is given what to call every few minutes, or more often.
        is_first: whether this is rank zero.

    Raises:
        UserError: on the other ranks, for whatever failed on rank zero; there it is raised as it is.
        Preempted: likewise, where that was told to stop.
    """
    if not is_first:
        while (told := agreed(str)) == GOES_ON:
            pass
        kind, _, reason = told.partition(": ")
        if kind:
            raise Preempted(reason) if kind == Preempted.__name__ else UserError(reason)
        return

    def goes_on() -> None:
        agreed(lambda: GOES_ON)

    try:
        work(goes_on)
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        agreed(lambda: failed)
        raise
    agreed(str)


def config_flags(arguments: list[str]) -> list[str]:
    """Those of a command's arguments that say where Hydra finds the config.

    >>> config_flags(["-m", "--config-dir", "mine", "task=qa", "-cn=other"])
    ['--config-dir', 'mine', '-cn=other']
    """
    names = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
    found = []
    for i, argument in enumerate(arguments):
        if argument.partition("=")[0] in names:
            found += [argument] if "=" in argument else arguments[i : i + 2]
    return found


@contextmanager
def as_a_run_of_its_own(directory: Path, overrides: list[str]) -> Iterator[None]:
    """A job of a sweep, such that Lightning's further processes run this job alone and not the sweep.

    Args:
        directory: the job's folder.
        overrides: the job's options.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict, read_write

    argv, environment = list(sys.argv), {name: os.environ.get(name) for name in RANK_VARIABLES}
    sys.argv[1:] = [*config_flags(argv[1:]), *overrides, "hydra.mode=RUN"]
    settings: Any = HydraConfig.instance().cfg.hydra  # type: ignore[union-attr]
    with read_write(settings), open_dict(settings):
        before = OmegaConf.to_container(settings.run, resolve=False)["dir"]  # type: ignore[index,call-overload]
        settings.run.dir = str(directory)
    try:
        yield
    finally:
        leave()
        sys.argv[:] = argv
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        with read_write(settings), open_dict(settings):
            settings.run.dir = before
