"""Where each question stands: what people's judgements, as they are in the log, make of it.

A server brings all of it up to date when it starts (`catch_up`), and a question after each judgement of it (`settle`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from rlhf_lightning.feedback.database import events, items
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.holding import superseded
from rlhf_lightning.feedback.payloads import Payload
from rlhf_lightning.feedback.server.comparing import Judgement, disputed
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.tables import assignments, queue

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class Said(BaseModel):
    """What of a stored judgement decides where its question stands; the rest of it is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    payload: Payload | None = None
    adjudicates: tuple[str, ...] = ()


class Question(BaseModel):
    """What of a stored question decides whom it is asked; the rest of it is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    id: str
    expected: dict[str, Any] | None = None
    repeats: str | None = None
    adjudicates: tuple[str, ...] = ()
    raters: int | None = None
    priority: float = 0.0


def catch_up(project: Project, connection: Connection) -> None:
    """Make ``queue`` and ``assignments`` of a project say what its log says; leases stay as they are.

    It takes a few queries, however long the log is.
    """
    held, drafts = _holding(project, connection)
    said = _said(project, connection, {row.id for row in held.values()})
    of_item: dict[str, list[Said]] = defaultdict(list)
    for row in held.values():
        if row.status == "submitted":
            of_item[row.item].append(said[row.id])
    asked = sa.select(items.c.body, items.c.seq).where(items.c.project == project.name)
    line = []
    for body, seq in _streamed(connection, asked):
        question = Question.model_validate_json(body)
        stands = standing(question, question.raters or project.raters, of_item.get(question.id, ()))
        line.append(_queued(project, question, seq, *stands))
    _make(project, connection, queue, line)
    stands_at = {row["item"]: {"pool": row["pool"], "open": row["open"]} for row in line}

    mine = assignments.c.project == project.name
    names = [column.name for column in assignments.c]
    stored = connection.execute(sa.select(assignments).where(mine)).all()
    rows = {(row.item, row.person): dict(zip(names, row, strict=True)) for row in stored}
    for key in {*held, *drafts} - rows.keys():
        first = held.get(key) or drafts[key]
        settles = (said[first.id] if first.id in said else read_event(connection, first.id)).adjudicates
        task = "adjudicate" if settles else "judge"
        rows[key] = {"project": project.name, "item": key[0], "person": key[1], "task": task, "given": first.time}
        rows[key].update(tab=None, lease=None, expires=None)
    for key, values in rows.items():
        event, draft = held.get(key), drafts.get(key)
        values.update(event=event and event.id, status=event and event.status, finished=event and event.time)
        values.update(draft=draft and draft.id)
    kept = [values | stands_at[values["item"]] for values in rows.values() if values["item"] in stands_at]
    _make(project, connection, assignments, kept)


def _make(project: Project, connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Make these the project's rows of a table; where they are, as at most starts, nothing is written."""
    mine = table.c.project == project.name
    stored = {tuple(row) for row in connection.execute(sa.select(table).where(mine))}
    if stored == {tuple(row[column.name] for column in table.c) for row in rows}:
        return
    connection.execute(sa.delete(table).where(mine))
    if rows:
        connection.execute(sa.insert(table), rows)


Places = dict[tuple[str, str], Any]
"""Rows of the log by item and person."""


def _holding(project: Project, connection: Connection) -> tuple[Places, Places]:
    """What each person's judgement or skip of each question is that holds, and their newest draft, if it is newer.

    Most of a log can be drafts, each with all its texts: events are told by their columns alone.
    """
    columns = (events.c.id, events.c.item, events.c.annotator, events.c.status, events.c.supersedes, events.c.time)
    explicit = sa.and_(events.c.project == project.name, events.c.kind != "implicit")
    log = connection.execute(sa.select(*columns).where(explicit).order_by(events.c.seq)).all()
    gone = superseded((row.id, row.annotator, row.status, row.supersedes) for row in log)
    held: Places = {}
    drafts: Places = {}
    for row in log:
        key = row.item, row.annotator
        if row.id in gone:
            continue
        if row.status == "draft":
            drafts[key] = row
        elif row.status in ("submitted", "skipped"):
            held[key] = row
            drafts.pop(key, None)
    return held, drafts


def _said(project: Project, connection: Connection, wanted: Set[str]) -> dict[str, Said]:
    """What was said, by the event's id, in those that are wanted."""
    finished = sa.and_(events.c.project == project.name, events.c.status.in_(("submitted", "skipped")))
    log = _streamed(connection, sa.select(events.c.id, events.c.body).where(finished))
    return {name: Said.model_validate_json(body) for name, body in log if name in wanted}


def _streamed(connection: Connection, query: sa.Select[Any]) -> Iterator[Any]:
    """Rows, a batch at a time: all bodies of a log at once would take much memory."""
    with connection.execute(query, execution_options={"yield_per": 1000}) as rows:
        yield from rows


def enrol(project: Project, connection: Connection) -> None:
    """Take questions into the queue that were added since."""
    newest = connection.scalar(sa.select(sa.func.max(queue.c.seq)).where(queue.c.project == project.name))
    new = sa.select(items.c.body, items.c.seq).where(items.c.project == project.name)
    rows = []
    for body, seq in connection.execute(new.where(items.c.seq > (-1 if newest is None else newest))).tuples():
        question = Question.model_validate_json(body)
        rows.append(_queued(project, question, seq, pool_of(question), True))
    if rows:
        connection.execute(sa.insert(queue), rows)


def _queued(project: Project, question: Question, seq: int, pool: str, wanted: bool) -> dict[str, Any]:
    return {
        "project": project.name,
        "item": question.id,
        "seq": seq,
        "pool": pool,
        "open": wanted,
        "raters": question.raters,
        "rank": -question.priority,
        "asks": question.repeats,
    }


def pool_of(question: Question) -> str:
    """What a question is for: to learn something, or to see how good people are."""
    if question.expected is not None:
        return "gold"
    if question.repeats is not None:
        return "repeat"
    return "adjudicate" if question.adjudicates else "judge"


def standing(question: Question, raters: int, holding: Iterable[Said]) -> tuple[str, bool]:
    """The pool of a question after what people said, and whether someone is still wanted.

    Args:
        question: see there.
        raters: how many people it wants.
        holding: the submitted judgements that hold.
    """
    pool = pool_of(question)
    if pool in ("gold", "repeat"):
        return pool, True
    submitted = [said for said in holding if said.payload is not None]
    if any(said.adjudicates for said in submitted):
        return "adjudicate", False
    if pool == "adjudicate":
        return pool, True
    if len(submitted) < raters:
        return pool, True
    payloads: list[Judgement] = [said.payload for said in submitted if said.payload is not None]
    return ("adjudicate", True) if disputed(payloads) else (pool, False)


def settle(project: Project, connection: Connection, item: str) -> None:
    """Note where a question stands, after a judgement of it."""
    of_item = sa.and_(assignments.c.project == project.name, assignments.c.item == item)
    ids = sa.select(assignments.c.event).where(of_item, assignments.c.status == "submitted")
    bodies = connection.scalars(sa.select(events.c.body).where(events.c.id.in_(ids))).all()
    asked = sa.select(items.c.body).where(items.c.project == project.name, items.c.id == item)
    question = Question.model_validate_json(connection.execute(asked).scalar_one())
    holding = [Said.model_validate_json(body) for body in bodies]
    pool, wanted = standing(question, question.raters or project.raters, holding)
    for table in (queue, assignments):
        of_item = sa.and_(table.c.project == project.name, table.c.item == item)
        connection.execute(sa.update(table).where(of_item).values(pool=pool, open=wanted))


def read_event(connection: Connection, name: str) -> Event:
    """An event by its id."""
    return Event.from_json(connection.execute(sa.select(events.c.body).where(events.c.id == name)).scalar_one())
