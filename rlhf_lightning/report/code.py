"""Which version of the code a run was made with."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def code_version(folder: Path | None = None) -> dict[str, Any]:
    """The package's ``version``; where its source lies in a git checkout also the ``commit``, and if it is ``changed``.

    Args:
        folder: where the source lies; by default where the package was imported from. A checkout that only surrounds
            it, as where a virtual environment lies in another project, is not its own and not looked at.
    """
    folder = folder or Path(__file__).resolve().parents[1]
    known: dict[str, Any] = {"version": version("rlhf-lightning")}
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return known
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return {**known, "commit": _git(folder, "rev-parse", "HEAD"), "changed": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What a git command says; None where it fails, or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
