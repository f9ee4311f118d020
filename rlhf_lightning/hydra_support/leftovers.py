"""The run folder of a run that was refused: it is taken away again, where this start made it and nothing is in it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_made: list[Path] = []
"""Folders that weren't there when this process started its run: the run folder and those above it, the deepest
first."""

UNTOUCHED = {".hydra", "base"}
"""What a run folder holds before anything is trained: the config, and a model made on the spot."""


class NoteFolders(Callback):
    """Remembers, before Hydra makes the run folder, which folders there aren't yet."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look; a folder named by the time is made when its name is asked for, and noted by then."""
        note(Path(config.hydra.run.dir))


def note(folder: Path) -> None:
    """Remember that a folder is about to be made, and which of those above it will be."""
    if folder.absolute() not in _made:  # else it is there because of us
        _made[:] = [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]


def take_away(folder: Path) -> None:
    """Remove a run folder in which nothing was begun, and the empty ones above it, as far as this process made them."""
    if folder.absolute() not in _made or not folder.is_dir() or {path.name for path in folder.iterdir()} - UNTOUCHED:
        return
    with suppress(OSError):  # another process of the same run may be as far
        shutil.rmtree(folder)
        for above in _made[1:]:
            if any(above.iterdir()):
                break
            above.rmdir()
    _made.clear()
