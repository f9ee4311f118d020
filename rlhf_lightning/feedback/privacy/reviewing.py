"""What a person who looked at a placeholder says of it: whether it stands for personal data.

The data itself is not kept, so that a wrong placeholder stays in the text; but it is known then which rules err.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.database import replaced, reviewed
from rlhf_lightning.feedback.salt import pseudonym, salt_of
from rlhf_lightning.feedback.store import Store

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def finding_name(salt: bytes, row: sa.RowMapping) -> str:
    """What a placeholder (a row of ``replaced``) is called: 10 hexadecimal digits."""
    place = json.dumps([row[column.name] for column in replaced.primary_key])
    return pseudonym(salt, f"\x00finding/{place}")[:10]


def looked_at(connection: Connection) -> set[str]:
    """The names of the placeholders that were looked at."""
    return set(connection.scalars(sa.select(reviewed.c.finding)))


def judge_findings(store: Store, right: Sequence[str] = (), wrong: Sequence[str] = ()) -> None:
    """Note of placeholders whether they stand for personal data; the last word counts.

    Args:
        store: see there.
        right, wrong: names (`finding_name`) of those that do, and of those that don't.

    Raises:
        UserError: if there is no placeholder of that name; nothing is noted then.
    """
    salt = salt_of(store)
    said = dict.fromkeys(right, True) | dict.fromkeys(wrong, False)
    with store.writing() as connection:
        kinds = {finding_name(salt, row): row["kind"] for row in connection.execute(sa.select(replaced)).mappings()}
        if unknown := [name for name in said if name not in kinds]:
            raise UserError(f"there is no finding {unknown[0]!r}: `rlhf-feedback review --all` shows their names")
        rows = [{"finding": name, "kind": kinds[name], "right": is_right} for name, is_right in said.items()]
        connection.execute(sa.delete(reviewed).where(reviewed.c.finding.in_([row["finding"] for row in rows])))
        connection.execute(sa.insert(reviewed), rows)


def record(connection: Connection) -> dict[str, Counter[bool]]:
    """By kind of placeholder, how many were right (True) and wrong (False)."""
    found: dict[str, Counter[bool]] = {}
    query = sa.select(reviewed.c.kind, reviewed.c.right, sa.func.count()).group_by(reviewed.c.kind, reviewed.c.right)
    for kind, right, count in connection.execute(query.order_by(reviewed.c.kind)):
        found.setdefault(kind, Counter())[bool(right)] = count
    return found
