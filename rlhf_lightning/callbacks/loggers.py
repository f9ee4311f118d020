"""Loggers that need more than their class's own arguments."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, WandbLogger


def restore_curves(logger: CSVLogger, path: Path) -> None:
    """Let a new logger begin with the rows of a metrics.csv, which it will write as they were."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: value for name, value in row.items() if value != ""} for row in csv.DictReader(file)]
    logger.experiment.metrics += rows


def wandb_key() -> str | None:
    """The W&B key of this machine's user, if there is one; it is only looked for, never shown."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    import netrc
    from urllib.parse import urlparse

    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        login = netrc.netrc(os.environ.get("NETRC", str(Path.home() / ".netrc"))).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return login[2] if login else None


def wandb_logger(project: str, entity: str | None = None, offline: bool | None = None, **kwargs: Any) -> WandbLogger:
    """A `WandbLogger` that is offline where no key is set, and doesn't speak on the screen.

    Args:
        project: W&B project.
        entity: user or team.
        offline: None decides by whether there is a key; WANDB_MODE in the environment goes first.
        kwargs: group, job_type, tags, config and so on, as `wandb.init` takes them.
    """
    import wandb

    if offline is None:
        offline = wandb_key() is None
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        offline = False  # the environment has decided; the logger's own switch would override it
    settings = wandb.Settings(silent=True, console="off")
    logger = WandbLogger(project=project, entity=entity, offline=offline, settings=settings, **kwargs)
    logger._wandb_init.pop("anonymous", None)  # Lightning always passes it, and W&B warns that it has no effect
    return logger
