"""Which question a person gets next.

Questions come by priority, then in the order in which they were added. Each is given to as many people as it wants
raters; being at one is a lease that ends when it isn't renewed. Nobody gets a question twice, but for repeats: among a
person's questions some have a known answer and some ask an earlier one again, drawn by a keyed hash, so that nobody
sees which. What raters don't agree on goes to an adjudicator who has not judged it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rlhf_lightning.feedback.database import stamp
from rlhf_lightning.feedback.server.leases import Given, lease, read_item, room
from rlhf_lightning.feedback.server.people import Person
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.security import Refused
from rlhf_lightning.feedback.server.standing import enrol
from rlhf_lightning.feedback.server.tables import POOLS, Task, assignments, queue

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

MOST_LEASES = 8
"""Questions that one person may be at, each in a tab."""

REPEAT_AFTER = 10
"""So many questions lie between one and its repeat, so that it is not answered from memory."""

_asked = sa.and_(queue.c.project == assignments.c.project, queue.c.item == assignments.c.item)


def next_question(project: Project, connection: Connection, person: Person, tab: str, task: Task) -> Given | None:
    """The question that a tab is at, or a new one, leased to it; None where there is none for this person now.

    Raises:
        Refused: 409, if the person is at too many.
    """
    enrol(project, connection)
    now = stamp(project.now())
    mine = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name, assignments.c.task == task)
    live = assignments.c.expires > now
    here = sa.select(assignments.c.item).where(mine, live, assignments.c.tab == tab)
    item = connection.scalar(here.order_by(assignments.c.given.desc()).limit(1))
    if item is not None:
        return lease(project, connection, person, tab, task, item, anew=False)
    if (connection.scalar(sa.select(sa.func.count()).where(mine, live)) or 0) >= MOST_LEASES:
        raise Refused(409, "too_many_tabs", f"You are at {MOST_LEASES} questions already: close a few tabs first.")
    pools = queue.c.pool.in_(POOLS[task])
    begun = (
        sa.select(assignments.c.item)
        .join(queue, _asked)
        .where(
            mine, assignments.c.status.is_(None), sa.or_(assignments.c.expires.is_(None), assignments.c.expires <= now)
        )
        .where(pools, queue.c.open, room(project, person, task, now))
        .order_by(assignments.c.given)
    )
    item = connection.scalar(begun.limit(1))
    if item is None:
        item = connection.scalar(_ordinary(project, person, task, now))
        if task == "judge":
            item = _drawn(project, connection, person, item)
    return None if item is None else lease(project, connection, person, tab, task, item)


def _unseen(person: Person) -> sa.ColumnElement[bool]:
    own = assignments.alias("own")
    of_item = sa.and_(own.c.project == queue.c.project, own.c.item == queue.c.item)
    return ~sa.exists().where(of_item, own.c.person == person.id).correlate(queue)


def _ordinary(project: Project, person: Person, task: Task, now: str) -> sa.Select[Any]:
    return (
        sa.select(queue.c.item)
        .where(queue.c.project == project.name, queue.c.pool == task, queue.c.open)
        .where(_unseen(person), room(project, person, task, now))
        .order_by(queue.c.rank, queue.c.seq)
        .limit(1)
    )


def _drawn(project: Project, connection: Connection, person: Person, ordinary: str | None) -> str | None:
    """The ordinary question, or in its place one to see how good people are; where there is no other, all gold ones."""
    mine = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name)
    number = connection.scalar(sa.select(sa.func.count()).where(mine)) or 0
    of_project = queue.c.project == project.name
    gold = sa.select(queue.c.item).where(of_project, queue.c.pool == "gold", _unseen(person))
    if ordinary is None:
        others = sa.select(queue.c.item).where(of_project, queue.c.pool.in_(("judge", "adjudicate"))).limit(1)
        if connection.scalar(others) is not None:
            return None
        return connection.scalar(gold.order_by(queue.c.rank, queue.c.seq).limit(1))
    chance = project.chance("draw", person.id, number)
    if chance < project.gold_share:
        return _one_of(project, connection, person, number, gold.order_by(queue.c.seq)) or ordinary
    if chance < project.gold_share + project.repeat_share:
        return _repeat(project, connection, person, number) or ordinary
    return ordinary


def _one_of(
    project: Project, connection: Connection, person: Person, number: int, wanted: sa.Select[Any]
) -> str | None:
    """One of some questions, each as likely as any other; None where there is none."""
    found = connection.scalars(wanted).all()
    return found[int(project.chance("one", person.id, number) * len(found))] if found else None


def _repeat(project: Project, connection: Connection, person: Person, number: int) -> str | None:
    """A question of the person's own that is asked once more, as one of its own id; None where none is old enough."""
    mine = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name)
    done = sa.and_(mine, assignments.c.task == "judge", assignments.c.status.is_not(None))
    last = sa.select(assignments.c.finished).where(done).order_by(assignments.c.finished.desc())
    since = connection.scalar(last.offset(REPEAT_AFTER - 1).limit(1))
    if since is None:
        return None
    asked = sa.select(queue.c.asks).join(assignments, _asked).where(mine, queue.c.asks.is_not(None))
    old = (
        sa.select(assignments.c.item)
        .where(done, assignments.c.status == "submitted", assignments.c.finished < since)
        .where(assignments.c.pool.in_(("judge", "adjudicate")))  # neither a known one nor itself a repeat
        .where(assignments.c.item.not_in(asked))
        .order_by(assignments.c.finished, assignments.c.item)
    )
    chosen = _one_of(project, connection, person, number, old)
    if chosen is None:
        return None
    known = connection.scalar(sa.select(queue.c.item).where(queue.c.project == project.name, queue.c.asks == chosen))
    if known is not None:
        return known
    item = read_item(project, connection, chosen)
    again = item.model_copy(update={"id": project.mark("again", chosen)[:20], "repeats": chosen})
    project.store.add_items([again], project.name, connection)
    enrol(project, connection)
    return again.id
