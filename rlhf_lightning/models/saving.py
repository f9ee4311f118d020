"""Model folders that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from rlhf_lightning.errors import UserError


def write_folder(folder: str | Path, fill: Callable[[Path], None]) -> Path:
    """Fill a folder beside ``folder``, then rename it into place; what was there before is replaced only then.

    Args:
        folder: where the result goes.
        fill: writes the content into the folder it is given.

    Returns:
        ``folder``.

    Raises:
        UserError: if the disk or the permissions don't allow it; nothing half-written is left at ``folder``.
    """
    folder = Path(folder)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        fill(beside)
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the model folder {folder}: {error}. Free some space or choose another paths.output_dir."
        ) from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder
