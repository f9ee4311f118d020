"""Rows made of judgements as files, in the columns of TRL's dataset formats."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_lightning.data.rows import PreferenceRow, SFTRow, UnpairedRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.lineage import MANIFEST
from rlhf_lightning.feedback.rows import Rows

OPTIONAL = {"weight": 1.0, "margin": 0.0, "probability": 1.0, "group": None}
"""Columns that a file has only where a row differs from what these say."""


def write_rows(
    folder: str | Path, rows: Rows, test: Rows | None = None, manifest: dict[str, str] | None = None
) -> dict[str, Path]:
    """Write rows to a new folder: all files or none.

    The files are ``preferences.jsonl``, ``unpaired.jsonl`` and ``sft.jsonl``, and of held-out rows the same with
    ``_test``; one without rows is left out. Their columns are those of `rlhf_lightning.data.rows`, and each row's meta.
    A chat prompt is a list of messages, its completions a list of one.

    Args:
        folder: that isn't there yet, or is empty: rows that a model was trained on are not to be replaced unnoticed.
        rows: to train on.
        test: held-out ones.
        manifest: where they come from; by it runs that train on them are noted (`lineage`).

    Returns:
        The files by name (``preferences``, ``preferences_test``, ...).

    Raises:
        UserError: if there are no rows, the folder has something in it, or can't be written.
    """
    folder = Path(folder).expanduser()
    check_folder(folder)
    parts: dict[str, Sequence[PreferenceRow | UnpairedRow | SFTRow]] = {}
    for suffix, side in (("", rows), ("_test", test or Rows())):
        parts |= {f"{name}{suffix}": getattr(side, name) for name in ("preferences", "unpaired", "sft")}
    parts = {name: part for name, part in parts.items() if part}
    optional = optional_columns(rows, test or Rows())
    if not parts:
        raise UserError(f"there are no rows to write to {folder}")
    beside = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.writing")
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        for name, part in parts.items():
            with (beside / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for values in _values(part, optional):
                    file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        if manifest is not None:
            (beside / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.rename(folder.absolute())  # over an empty folder, too
    except ValueError as error:  # NaN, or what JSON has no word for, in a column of the task
        raise UserError(f"a row can't be written to {folder}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot write rows to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return {name: folder / f"{name}.jsonl" for name in parts}


def check_folder(folder: Path) -> None:
    """Refuse a folder that rows can't be written to, before anything else is done."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: name a new folder for the rows")


def optional_columns(*sides: Rows) -> list[str]:
    """Those of `OPTIONAL` that files of judgements have, in which ``task.format`` must name them.

    If one row has need of a column all files of judgements have it, as a reader is told the columns once.
    """
    judged = [row for side in sides for row in (*side.preferences, *side.unpaired)]
    return [name for name, usual in OPTIONAL.items() if any(getattr(row, name, usual) != usual for row in judged)]


def _values(rows: Sequence[PreferenceRow | UnpairedRow | SFTRow], optional: Sequence[str]) -> list[dict[str, Any]]:
    made = []
    for row in rows:
        chat = not isinstance(row.prompt.text, str)
        values: dict[str, Any] = {"prompt": row.prompt.text}
        for name in ("chosen", "rejected", "completion"):
            if (text := getattr(row, name, None)) is not None:
                values[name] = [{"role": "assistant", "content": text}] if chat else text
        if isinstance(row, UnpairedRow):
            values["label"] = row.label
        values |= {name: getattr(row, name) for name in optional if hasattr(row, name)}
        made.append({**values, **{name: value for name, value in row.meta.items() if name not in values}})
    return made
