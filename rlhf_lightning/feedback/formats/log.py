"""``log``: the whole store as JSONL, nothing lost: ``{"item": {...}, "project": ...}`` and ``{"event": {...}}`` a line.

People keep the ids that they have: the salt that made them stays in the store. What is erased, taken back or a draft is
in it too.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Connection

from rlhf_lightning.data.files import Record, shown
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.database import events, items
from rlhf_lightning.feedback.events import Event, explain
from rlhf_lightning.feedback.formats.common import Import, records
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.store import Store

BATCH = 500


def read(path: Path, into: Import) -> Iterator[Event | tuple[Item, str, bool]]:
    """The events, and the items, each with its project and whether it is open, in the order of the file."""
    for record in records(path, into):
        try:
            yield _entry(record)
        except UserError as error:
            into.bad(error)


def _entry(record: Record) -> Event | tuple[Item, str, bool]:
    values = record.values
    known = {"event"} if "event" in values else {"item", "project", "open"}
    if not (set(values) <= known and isinstance(values.get("event", values.get("item")), dict)):
        raise UserError(f"{record.place}: a line of the log is {{event: ...}} or {{item: ...}}; found {shown(values)}")
    try:
        if "event" in values:
            return Event.model_validate(values["event"])
        project, is_open = values.get("project", "default"), values.get("open", True)
        if not isinstance(project, str) or not isinstance(is_open, bool):
            raise UserError(f"{record.place}: 'project' must be a text, and 'open' true or false")
        return Item.model_validate(values["item"]), project, is_open
    except ValidationError as error:
        what = "event" if "event" in values else "item"
        raise UserError(f"{record.place}, {what}: {explain(error)}") from error


def add_items(store: Store, connection: Connection, new: Sequence[tuple[Item, str, bool]]) -> int:
    """Store items as a log has them; those whose id their project knows are passed over. Returns how many were new."""
    names = [(project, store.stored_item(item).id) for item, project, _ in new]
    stored = sa.select(items.c.project, items.c.id).where(items.c.id.in_([name for _, name in names]))
    known = set(connection.execute(stored).tuples())
    added = 0
    # Runs of one project, not all of it at once: the order is that in which people are asked.
    for project, run in itertools.groupby(new, key=lambda entry: entry[1]):
        added += store.add_items([item for item, _, _ in run], project, connection)
    for (project, name), (_, _, is_open) in zip(names, new, strict=True):
        if not is_open and (project, name) not in known:
            of_item = sa.and_(items.c.project == project, items.c.id == name)
            connection.execute(sa.update(items).where(of_item).values(open=False))
    return added


class Line(NamedTuple):
    """A line of the log; id and status of the event in it, None for a question."""

    text: str
    event: str | None = None
    status: str | None = None


def write(store: Store, project: str | None = None) -> Iterator[Line]:
    """The lines of the log, of one moment and a batch at a time."""
    with store.engine.connect().execution_options(yield_per=BATCH) as connection, connection.begin():
        questions = sa.select(items.c.body, items.c.project, items.c.open).order_by(items.c.seq)
        log = sa.select(events.c.body, events.c.id, events.c.status).order_by(events.c.seq)
        if project is not None:
            questions = questions.where(items.c.project == project)
            log = log.where(events.c.project == project)
        for body, of, is_open in connection.execute(questions):
            more: dict[str, Any] = {"project": of} if is_open else {"project": of, "open": False}
            yield Line(f'{{"item":{body},{json.dumps(more, ensure_ascii=False)[1:]}\n')
        for body, name, status in connection.execute(log):
            # The body is the event's JSON, as `Event.to_json` wrote it: a line of it, unread.
            yield Line(f'{{"event":{body}}}\n', name, status)
