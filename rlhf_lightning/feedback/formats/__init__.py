"""Files of other tools and public sets: what they hold as events, and events as they hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import read_file
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.formats import arena, argilla, hh, label_studio, oasst, table, tldr, trl
from rlhf_lightning.feedback.formats.common import Import, Leave, refuse

Read = Callable[[Path, Import], Iterator[Event]]
Write = Callable[[Iterable[Event], Leave], Iterator[str]]

FORMATS: dict[str, tuple[Read, Write]] = {
    "preference": (trl.read_preference, trl.write_preference),
    "unpaired": (trl.read_unpaired, trl.write_unpaired),
    "sft": (trl.read_sft, trl.write_sft),
    "hh": (hh.read, hh.write),
    "tldr": (tldr.read, tldr.write),
    "oasst": (oasst.read, oasst.write),
    "arena": (arena.read, arena.write),
    "label_studio": (label_studio.read, label_studio.write),
    "argilla": (argilla.read, argilla.write),
    "csv": (table.read, table.write),
}
"""How each format is read and written. The log itself is another thing: it holds a store, not judgements (`log`)."""

NAMES = ("log", *FORMATS)

_MARKS: tuple[tuple[str, frozenset[str]], ...] = (
    ("tldr", frozenset({"info", "summaries", "choice"})),
    ("oasst", frozenset({"message_tree_id", "prompt"})),
    ("arena", frozenset({"question_id", "model_a", "model_b", "winner", "conversation_a", "conversation_b"})),
    ("label_studio", frozenset({"data", "annotations"})),
    ("argilla", frozenset({"fields", "responses"})),
    ("csv", frozenset({"prompt", "kind", "choice"})),
    ("preference", frozenset({"chosen", "rejected"})),
    ("unpaired", frozenset({"prompt", "completion", "label"})),
    ("sft", frozenset({"prompt", "completion"})),
    ("sft", frozenset({"messages"})),
)


def recognised(path: Path) -> str | None:
    """The format of a file by the fields of its first row; None where they are of none, or there is no row.

    Raises:
        UserError: if that row can't be read.
    """
    first = next(iter(read_file(path, None, None, refuse)), None)
    if first is None:
        return None
    values: dict[str, Any] = first.values
    if set(values) in ({"event"}, {"item"}, {"item", "project"}, {"item", "project", "open"}):
        return "log"
    if set(values) == {"chosen", "rejected"} and all(
        str(v).startswith(("\n\nHuman:", "\n\nAssistant:")) for v in values.values()
    ):
        return "hh"
    return next((name for name, marks in _MARKS if marks <= set(values)), None)


def check_format(name: str) -> None:
    """Raise a `UserError` that lists the formats where there is none of this name."""
    if name not in NAMES:
        from rlhf_lightning.data.files import did_you_mean

        raise UserError(f"there is no format {name!r}{did_you_mean(name, NAMES)}; there are {', '.join(NAMES)}")
