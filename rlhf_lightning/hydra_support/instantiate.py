"""From config to objects, in one place (Hydra 1.4 changes how `instantiate` is called)."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from rlhf_lightning.errors import UserError


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
    """Make ``${sample_data:TASK,PART}``, the path of a task's embedded rows, known to OmegaConf."""

    def sample_data(task: str, part: str) -> str:
        from rlhf_lightning.tasks import sample_files

        return sample_files(task)[part]

    OmegaConf.register_new_resolver("sample_data", sample_data, replace=True)
