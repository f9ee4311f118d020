"""From config to objects, in one place (Hydra 1.4 changes how `instantiate` is called)."""

from __future__ import annotations

import itertools
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support.leftovers import note
from rlhf_lightning.processes import agreed


def plain(config: Any) -> Any:
    """A config as resolved plain dicts, lists and values.

    Raises:
        UserError: for a mandatory value that is missing.
    """
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        return (
            OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(config)
            else config
        )
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} must be given: {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise UserError(f"the config can't be resolved: {error}") from error


def instantiate(config: Any, /, **kwargs: Any) -> Any:
    """Build what a plain config's ``_target_`` names, with ``kwargs`` beside its own values.

    Raises:
        UserError: if it can't be found, or doesn't take these values.
    """
    import hydra.utils
    from hydra.errors import InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    values = plain(config)
    try:
        # Called with kwargs, Hydra would take the dataclasses among them for configs, and hand on dicts in their place.
        made = hydra.utils.instantiate({**values, "_partial_": True} if kwargs else values, _convert_="all")
        return made(**kwargs) if kwargs else made
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise UserError(f"{values.get('_target_')} does not take these options: {error}") from error
    except (ImportError, MisconfigurationException) as error:  # an optional package, or a device that isn't there
        raise UserError(f"cannot use {values.get('_target_')}: {error}") from error
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        reason = error.__cause__ or error
        raise UserError(f"cannot build {values.get('_target_')}: {reason}") from error


def register_resolvers() -> None:
    """Make the resolvers of our configs known to OmegaConf.

    ``${sample_data:TASK,PART}`` is the path of a task's embedded rows; ``${run_folder:PARENT,RESUME,OVERRIDES}`` a new
    folder named by the time, or that of the run to resume; ``${sweep_folder:PARENT,RESUME,OVERRIDES,HYDRAS}`` likewise
    for a sweep; ``${job_folder:SWEEP,NUMBER,OVERRIDES,RESUME}`` the name of a job's folder in it;
    ``${record_folder:RUN_FOLDER,RESUME}`` where Hydra writes the config: a resumed run keeps the one it began with;
    ``${cores_for_each:JOBS}`` a job's share of the cores.
    """

    def sample_data(task: str, part: str) -> str:
        from rlhf_lightning.tasks import sample_files

        return sample_files(task)[part]

    def run_folder(parent: str, resume: Any, overrides: list[str]) -> str:
        from rlhf_lightning.state import find_run

        return agreed(lambda: str((find_run(Path(parent), overrides) if resume else None) or new_folder(Path(parent))))

    def sweep_folder(parent: str, resume: Any, overrides: list[str], hydra: list[str]) -> str:
        from rlhf_lightning.sweep.folders import find_sweep

        return str((find_sweep(Path(parent), overrides, hydra) if resume else None) or new_folder(Path(parent)))

    def job_folder(sweep: str, num: int, overrides: list[str], resume: Any) -> str:
        from rlhf_lightning.sweep.folders import job_folder

        return job_folder(Path(sweep), num, overrides, resume)

    def record_folder(directory: str, resume: Any) -> str:
        return ".hydra/resumed" if resume and Path(directory, "state.json").exists() else ".hydra"

    def cores(jobs: int) -> str:
        from rlhf_lightning.sweep.launching import cores_for_each

        return cores_for_each(jobs)

    # Cached: a second look would find another time, or the folder that the first one made.
    for resolver in (run_folder, sweep_folder, job_folder, record_folder):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("cores_for_each", cores, replace=True)
    OmegaConf.register_new_resolver("sample_data", sample_data, replace=True)


def new_folder(parent: Path) -> Path:
    """Make a folder named by the time: of two runs that begin in the same second each has its own.

    It is not made where Hydra only shows the config. Nor where it can't be: Hydra says so when it is to be used.
    """
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    only_shown = any(argument.partition("=")[0] in ("--cfg", "-c", "--info", "-i") for argument in sys.argv[1:])
    for path in (parent / (f"{name}_{n:02}" if n else name) for n in itertools.count()):
        try:
            if not only_shown:
                note(path)
                path.mkdir(parents=True)
        except FileExistsError:
            if path.is_dir():
                continue
        except OSError:
            pass
        return path
    raise AssertionError
