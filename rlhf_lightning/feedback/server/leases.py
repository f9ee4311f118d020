"""Who is at which question: a lease of a few minutes, renewed while they work at it, until they have answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rlhf_lightning.feedback.database import items, stamp
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.server.people import Person
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.security import Refused, new_secret
from rlhf_lightning.feedback.server.standing import settle
from rlhf_lightning.feedback.server.tables import Task, assignments, queue

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

LEASE = timedelta(minutes=10)


@dataclass(frozen=True)
class Given:
    """A question that someone is at."""

    item: Item
    task: Task
    lease: str
    expires: str
    event: str | None
    status: str | None
    draft: str | None


def lease(
    project: Project, connection: Connection, person: Person, tab: str, task: Task, item: str, anew: bool = True
) -> Given:
    """Put a person at a question, or renew that they are."""
    now = project.now()
    new = {"tab": tab, "expires": stamp(now + LEASE)}
    if anew:
        new |= {"lease": new_secret(), "given": stamp(now), "task": task}
    mine = _place(project, item, person)
    if connection.execute(sa.update(assignments).where(mine).values(new)).rowcount == 0:
        of_item = sa.and_(queue.c.project == project.name, queue.c.item == item)
        stands = connection.execute(sa.select(queue.c.pool, queue.c.open).where(of_item)).mappings().one()
        row = {"project": project.name, "item": item, "person": person.id, **stands}
        connection.execute(sa.insert(assignments).values({**row, **new}))
    found = connection.execute(sa.select(assignments).where(mine)).one()
    return Given(
        read_item(project, connection, item),
        found.task,
        found.lease,
        found.expires,
        found.event,
        found.status,
        found.draft,
    )


def leased(project: Project, connection: Connection, person: Person, secret: str) -> Given:
    """What a lease is of, renewed; also one that has ended, as long as nobody has taken the place.

    Raises:
        Refused: 409, if there is no such lease of this person any more.
    """
    lost = Refused(409, "lease_lost", "This question was given to someone else, or the link to it is old.")
    found = connection.execute(
        sa.select(assignments).where(
            assignments.c.lease == secret,
            assignments.c.person == person.id,
            assignments.c.project == project.name,
        )
    ).first()
    if found is None:
        raise lost
    now = stamp(project.now())
    over = found.expires <= now and found.status != "submitted"
    if over and not still_wanted(project, connection, person, found.task, found.item, now):
        raise lost
    return lease(project, connection, person, found.tab, found.task, found.item, anew=False)


def release(project: Project, connection: Connection, person: Person, secret: str) -> bool:
    """End a lease, so that others may have the question at once. One with a draft or an answer stays with its person.

    The person may still answer, as long as nobody has taken the place.

    Returns:
        Whether it was ended.
    """
    ended = connection.execute(
        sa.update(assignments)
        .where(assignments.c.lease == secret, assignments.c.person == person.id, assignments.c.project == project.name)
        .where(assignments.c.draft.is_(None), assignments.c.event.is_(None))
        .values(expires=stamp(project.now()))
    )
    return ended.rowcount > 0


def take_back(project: Project, connection: Connection, person: Person, tab: str) -> Given:
    """The question that a person finished last, leased once more; what they said holds until they say it anew.

    What they skipped comes back only as long as it still wants someone.

    Raises:
        Refused: 404, if there is none.
    """
    now = stamp(project.now())
    tasks = ("judge",) if person.role == "annotator" else ("judge", "adjudicate")
    last = connection.execute(
        sa.select(assignments.c.item, assignments.c.task, assignments.c.status)
        .where(assignments.c.person == person.id, assignments.c.project == project.name)
        .where(assignments.c.task.in_(tasks))
        .where(assignments.c.event.is_not(None))
        .where(sa.or_(assignments.c.expires.is_(None), assignments.c.expires <= now))
        .order_by(assignments.c.finished.desc())
        .limit(1)
    ).first()
    if last is None:
        raise Refused(404, "nothing", "There is nothing to take back.")
    if last.status == "skipped" and not still_wanted(project, connection, person, last.task, last.item, now):
        raise Refused(409, "lease_lost", "Someone else has this question now.")
    return lease(project, connection, person, tab, last.task, last.item)


def finish(project: Project, connection: Connection, person: Person, event: Event) -> None:
    """Note a judgement in its assignment: the lease ends with one that is submitted or skipped."""
    new: dict[str, Any] = {"draft": event.id}
    if event.status != "draft":
        new = {"event": event.id, "status": event.status, "finished": stamp(event.time), "draft": None}
        new |= {"lease": None, "expires": None, "tab": None}
    connection.execute(sa.update(assignments).where(_place(project, event.item, person)).values(new))
    if event.status != "draft":
        settle(project, connection, event.item)


def _place(project: Project, item: str, person: Person) -> sa.ColumnElement[bool]:
    of_item = sa.and_(assignments.c.project == project.name, assignments.c.item == item)
    return sa.and_(of_item, assignments.c.person == person.id)


def still_wanted(project: Project, connection: Connection, person: Person, task: Task, item: str, now: str) -> bool:
    """Whether a question is open, and has room for this person."""
    of_item = sa.and_(queue.c.project == project.name, queue.c.item == item)
    free = sa.select(queue.c.item).where(of_item, queue.c.open, room(project, person, task, now))
    return connection.scalar(free) is not None


def room(project: Project, person: Person, task: Task, now: str) -> sa.ColumnElement[bool]:
    """Whether a question of the queue still wants someone, beside the others who are at it or have done it."""
    others = assignments.alias("others")
    busy = (
        sa.select(sa.func.count())
        .where(others.c.project == queue.c.project, others.c.item == queue.c.item)
        .where(others.c.task == task, others.c.person != person.id)
        .where(sa.or_(others.c.status == "submitted", others.c.expires > now))
        .correlate(queue)
        .scalar_subquery()
    )
    wanted: Any = sa.func.coalesce(queue.c.raters, project.raters) if task == "judge" else 1
    return sa.or_(queue.c.pool.in_(("gold", "repeat")), busy < wanted)


def read_item(project: Project, connection: Connection, item: str) -> Item:
    """A project's question by its id."""
    query = sa.select(items.c.body).where(items.c.project == project.name, items.c.id == item)
    return Item.model_validate_json(connection.execute(query).scalar_one())
