"""`rlhf-feedback review`: the placeholders that stand for personal data, to be looked at by a person."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlhf_lightning.data.files import count_of
from rlhf_lightning.errors import UserError

if TYPE_CHECKING:
    from rlhf_lightning.feedback.store import Store

AROUND = 40
"""Characters shown before and after a placeholder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "--all", action="store_true", help="also what the rules are certain of; else what they are not, alone"
    )
    for name, about in (("right", "is personal data"), ("wrong", "was none")):
        parser.add_argument(
            f"--{name}",
            nargs="+",
            default=[],
            metavar="FINDING",
            help=f"what these stand for {about}: they leave the list and count for their kind",
        )


def run(args: argparse.Namespace) -> int:
    """List where something was replaced, of what kind, and the text around it; the data itself is not stored."""
    from rlhf_lightning.feedback.privacy.reviewing import judge_findings, record
    from rlhf_lightning.feedback.store import Store

    if both := set(args.right) & set(args.wrong):
        raise UserError(f"the finding {min(both)} can't be both right and wrong")
    with Store(args.store, create=False) as store:
        if args.right or args.wrong:
            judge_findings(store, args.right, args.wrong)
        lines = list(listed(store, args.all))
        certain = 0 if lines or args.all else sum(1 for _ in listed(store, every=True))
        with store.engine.connect() as connection:
            known = record(connection)
    if certain:
        are = "is" if certain == 1 else "are"
        print(f"nothing is uncertain; {count_of(certain, 'placeholders')} {are} certain: --all shows them")
    else:
        print("\n".join(lines) if lines else "there is nothing to be looked at")
    if known:
        print(f"\n{'looked at':<12}{'right':>8}{'wrong':>8}")
        for kind, counts in known.items():
            print(f"{kind:<12}{counts[True]:>8}{counts[False]:>8}")
    return 0


def listed(store: Store, every: bool = False) -> Iterator[str]:
    """A line for each placeholder that nobody has looked at: its name, what it is in, field, offsets, kind, certain or
    not, and the text around it.

    Args:
        store: see there.
        every: those that are certain, too.
    """
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import events, items, replaced
    from rlhf_lightning.feedback.privacy.reviewing import finding_name, looked_at
    from rlhf_lightning.feedback.salt import salt_of

    salt = salt_of(store)
    with store.engine.connect() as connection:
        done = looked_at(connection)
        query = sa.select(replaced).order_by(
            replaced.c.of, replaced.c.project, replaced.c.id, replaced.c.field, replaced.c.start
        )
        for row in connection.execute(query if every else query.where(~replaced.c.certain)).mappings():
            name = finding_name(salt, row)
            if name in done:
                continue
            table = events if row["of"] == "event" else items
            named = sa.and_(table.c.project == row["project"], table.c.id == row["id"])
            body = connection.scalar(sa.select(table.c.body).where(named))
            text = "" if body is None else text_at(json.loads(body), row["field"])
            start, end = row["start"], row["end"]
            around = json.dumps(text[max(0, start - AROUND) : end + AROUND], ensure_ascii=False)
            sure = "certain" if row["certain"] else "uncertain"
            yield f"{name}  {row['of']} {row['id']}  {row['field']} {start}-{end}  {row['kind']}, {sure}: {around}"


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
