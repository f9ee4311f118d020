"""Which models were trained on rows of people's judgements: noted beside the rows, for `rlhf-feedback erase`.

`rlhf-feedback rows` leaves a manifest in the folder of rows. A run that reads rows there adds a line to the folder's
list of models before it trains. No package beyond Python's own is needed, and no training fails for a note.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

MANIFEST = "feedback.json"
MODELS = "models.jsonl"


class Trained(NamedTuple):
    """A run that was trained on rows: its folder, and when it began."""

    path: str
    time: str


def note_models(run: Path, files: Iterable[str]) -> list[str]:
    """Note a run beside the rows that it reads, where these are of people's judgements.

    Args:
        run: its folder.
        files: of rows, or whatever else the options name.

    Returns:
        What could not be noted, in words.
    """
    folders = {Path(name).expanduser().absolute().parent for name in files if name}
    failed = []
    for folder in sorted(folders):
        try:
            if not (folder / MANIFEST).is_file():
                continue
            noted = Trained(str(run.absolute()), datetime.now(timezone.utc).isoformat(timespec="seconds"))
            with (folder / MODELS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(noted._asdict(), ensure_ascii=False) + "\n")
        except (OSError, ValueError) as error:
            failed.append(
                f"{folder / MODELS} could not be written ({error}): `rlhf-feedback erase` will not know this run"
            )
    return failed


def models_of(rows: Path) -> list[Trained]:
    """The runs that were noted beside rows, each once; a line that is none is passed over."""
    try:
        lines = (rows / MODELS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: dict[str, Trained] = {}
    for line in lines:
        try:
            values = json.loads(line)
            one = Trained(str(values["path"]), str(values["time"]))
        except (ValueError, TypeError, KeyError):
            continue
        found.setdefault(one.path, one)
    return list(found.values())
