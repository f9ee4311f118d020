"""`rlhf-feedback review`: the placeholders that stand for personal data, to be looked at by a person."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_lightning.feedback.store import Store

AROUND = 40
"""Characters shown before and after a placeholder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--all", action="store_true", help="those that are certain, too")


def run(args: argparse.Namespace) -> int:
    """List where something was replaced, of what kind, and the text around it; the data itself is not stored."""
    from rlhf_lightning.feedback.store import Store

    with Store(args.store, create=False) as store:
        lines = list(listed(store, args.all))
    print("\n".join(lines) if lines else "there is nothing to be looked at")
    return 0


def listed(store: Store, every: bool = False) -> Iterator[str]:
    """A line for each placeholder: what it is in, field, offsets, kind, certain or not, and the text around it.

    Args:
        store: see there.
        every: those that are certain, too.
    """
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import events, items, replaced

    with store.engine.connect() as connection:
        query = sa.select(replaced).order_by(
            replaced.c.of, replaced.c.project, replaced.c.id, replaced.c.field, replaced.c.start
        )
        for row in connection.execute(query if every else query.where(~replaced.c.certain)).mappings():
            table = events if row["of"] == "event" else items
            named = sa.and_(table.c.project == row["project"], table.c.id == row["id"])
            body = connection.scalar(sa.select(table.c.body).where(named))
            text = "" if body is None else text_at(json.loads(body), row["field"])
            start, end = row["start"], row["end"]
            around = json.dumps(text[max(0, start - AROUND) : end + AROUND], ensure_ascii=False)
            sure = "certain" if row["certain"] else "uncertain"
            yield f"{row['of']} {row['id']}  {row['field']} {start}-{end}  {row['kind']}, {sure}: {around}"


def text_at(value: Any, field: str) -> str:
    """The text at a place such as ``candidates.0.text`` (see `storing.Replaced`); empty where there is none."""
    for part in field.split("."):
        key = part.replace("~1", ".").replace("~0", "~")
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return ""
    return value if isinstance(value, str) else ""
