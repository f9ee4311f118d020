"""Which question a person gets next, and who is at which one.

Questions come by priority, then in the order in which they were added. Each is given to as many people as it wants
raters; being at one is a lease that ends when it isn't renewed. Nobody gets a question twice, but for repeats: among a
person's questions some have a known answer and some ask an earlier one again, drawn by a keyed hash, so that nobody
sees which. What raters don't agree on goes to an adjudicator who has not judged it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.server.comparing import Judgement, disputed
from rlhf_lightning.feedback.server.people import Person
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.security import Refused, new_secret
from rlhf_lightning.feedback.server.tables import assignments, queue
from rlhf_lightning.feedback.store import events, items, stamp

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

Task = Literal["judge", "adjudicate"]
POOLS: dict[Task, tuple[str, ...]] = {"judge": ("judge", "gold", "repeat"), "adjudicate": ("adjudicate",)}
LEASE = timedelta(minutes=10)
MOST_LEASES = 8
"""Questions that one person may be at, each in a tab."""

REPEAT_AFTER = 10
"""So many questions lie between one and its repeat, so that it is not answered from memory."""

FORESEEN = 200
"""So many draws are looked up to say how much is left."""


_asked = sa.and_(queue.c.project == assignments.c.project, queue.c.item == assignments.c.item)


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


# --- from the log ----------------------------------------------------------------------------------------------------


def catch_up(project: Project, connection: Connection) -> None:
    """Make ``queue`` and ``assignments`` of a project say what its log says; leases stay as they are."""
    connection.execute(sa.delete(queue).where(queue.c.project == project.name))
    enrol(project, connection)
    of_item: dict[str, list[Event]] = defaultdict(list)
    drafts: dict[tuple[str, str], str] = {}
    # Most of a log can be drafts, each with all its texts: they are told by their columns alone.
    columns = (events.c.id, events.c.item, events.c.annotator, events.c.status, events.c.supersedes)
    explicit = sa.and_(events.c.project == project.name, events.c.kind != "implicit")
    log = connection.execute(sa.select(*columns).where(explicit).order_by(events.c.seq)).all()
    said = sa.select(events.c.id, events.c.body).where(explicit, events.c.status.in_(("submitted", "skipped")))
    bodies = dict(connection.execute(said).tuples().all())
    by_id = {row.id: row for row in log}
    gone = {
        row.supersedes
        for row in log
        if row.status != "draft" and row.supersedes in by_id and by_id[row.supersedes].annotator == row.annotator
    }
    known = set(connection.scalars(sa.select(queue.c.item).where(queue.c.project == project.name)))
    for row in log:
        key = row.item, row.annotator
        if row.item not in known or row.id in gone:
            continue
        if row.status == "draft":
            drafts[key] = row.id
        elif row.status in ("submitted", "skipped"):
            of_item[row.item].append(Event.from_json(bodies[row.id]))
            drafts.pop(key, None)
    held = {(e.item, e.annotator.id): e for holding in of_item.values() for e in holding}
    mine = assignments.c.project == project.name
    rows = {
        (r["item"], r["person"]): dict(r) for r in connection.execute(sa.select(assignments).where(mine)).mappings()
    }
    for key in {*held, *drafts} - rows.keys():
        first = held.get(key) or read_event(connection, drafts[key])
        task = "adjudicate" if first.adjudicates else "judge"
        given = stamp(first.time)
        rows[key] = {"item": key[0], "person": key[1], "project": project.name, "task": task, "given": given}
        rows[key].update(tab=None, lease=None, expires=None)
    connection.execute(sa.delete(assignments).where(mine))
    for key, values in rows.items():
        event = held.get(key)
        values.update(event=event and event.id, status=event and event.status, draft=drafts.get(key))
        values.update(finished=event and stamp(event.time))
    kept = [values for values in rows.values() if values["item"] in known]
    if kept:
        connection.execute(sa.insert(assignments), kept)
    for item, holding in of_item.items():
        _settle(project, connection, item, holding)


def enrol(project: Project, connection: Connection) -> None:
    """Take questions into the queue that were added since."""
    newest = connection.scalar(sa.select(sa.func.max(queue.c.seq)).where(queue.c.project == project.name))
    new = sa.select(items.c.body, items.c.seq).where(items.c.project == project.name)
    rows = []
    for body, seq in connection.execute(new.where(items.c.seq > (-1 if newest is None else newest))).tuples():
        item = Item.model_validate_json(body)
        rows.append(
            {
                "item": item.id,
                "seq": seq,
                "project": project.name,
                "pool": pool_of(item),
                "open": True,
                "raters": item.raters,
                "rank": -item.priority,
                "asks": item.repeats,
            }
        )
    if rows:
        connection.execute(sa.insert(queue), rows)


def pool_of(item: Item) -> str:
    """What a question is for: to learn something, or to see how good people are."""
    if item.expected is not None:
        return "gold"
    if item.repeats is not None:
        return "repeat"
    return "adjudicate" if item.adjudicates else "judge"


def standing(item: Item, raters: int, holding: Iterable[Event]) -> tuple[str, bool]:
    """The pool of a question after what people said, and whether someone is still wanted.

    Args:
        item: the question.
        raters: how many people it wants.
        holding: the submitted judgements that hold.
    """
    pool = pool_of(item)
    if pool in ("gold", "repeat"):
        return pool, True
    submitted = [event for event in holding if event.status == "submitted" and event.payload is not None]
    if any(event.adjudicates for event in submitted):
        return "adjudicate", False
    if pool == "adjudicate":
        return pool, True
    payloads: list[Judgement] = [event.payload for event in submitted if event.payload is not None]
    if len(payloads) < raters:
        return pool, True
    return ("adjudicate", True) if disputed(payloads) else (pool, False)


def settle(project: Project, connection: Connection, item: str) -> None:
    """Note where a question stands, after a judgement of it."""
    of_item = sa.and_(assignments.c.project == project.name, assignments.c.item == item)
    ids = sa.select(assignments.c.event).where(of_item, assignments.c.event.is_not(None))
    bodies = connection.scalars(sa.select(events.c.body).where(events.c.id.in_(ids))).all()
    _settle(project, connection, item, [Event.from_json(body) for body in bodies])


def _settle(project: Project, connection: Connection, item: str, holding: Sequence[Event]) -> None:
    asked = read_item(project, connection, item)
    pool, wanted = standing(asked, asked.raters or project.raters, holding)
    of_item = sa.and_(queue.c.project == project.name, queue.c.item == item)
    connection.execute(sa.update(queue).where(of_item).values(pool=pool, open=wanted))


# --- the next question -----------------------------------------------------------------------------------------------


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
            mine, assignments.c.event.is_(None), sa.or_(assignments.c.expires.is_(None), assignments.c.expires <= now)
        )
        .where(pools, queue.c.open, _room(project, person, task, now))
        .order_by(assignments.c.given)
    )
    item = connection.scalar(begun.limit(1))
    if item is None:
        item = connection.scalar(_ordinary(project, person, task, now))
        if task == "judge":
            item = _drawn(project, connection, person, item)
    return None if item is None else lease(project, connection, person, tab, task, item)


def _room(project: Project, person: Person, task: Task, now: str) -> sa.ColumnElement[bool]:
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


def _unseen(person: Person) -> sa.ColumnElement[bool]:
    own = assignments.alias("own")
    of_item = sa.and_(own.c.project == queue.c.project, own.c.item == queue.c.item)
    return ~sa.exists().where(of_item, own.c.person == person.id).correlate(queue)


def _ordinary(project: Project, person: Person, task: Task, now: str) -> sa.Select[Any]:
    return (
        sa.select(queue.c.item)
        .where(queue.c.project == project.name, queue.c.pool == task, queue.c.open)
        .where(_unseen(person), _room(project, person, task, now))
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
        found = connection.scalars(gold).all()
        if found:
            return min(found, key=lambda item: project.mark("gold", person.id, item))
    elif chance < project.gold_share + project.repeat_share:
        again = _repeat(project, connection, person)
        if again is not None:
            return again
    return ordinary


def _repeat(project: Project, connection: Connection, person: Person) -> str | None:
    """A question of the person's own that is asked once more, as one of its own id; None where none is old enough."""
    mine = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name)
    done = (
        sa.select(assignments.c.item, assignments.c.status, queue.c.pool, queue.c.asks)
        .join(queue, _asked)
        .where(mine, assignments.c.task == "judge", assignments.c.event.is_not(None))
        .order_by(assignments.c.finished)
    )
    rows = connection.execute(done).all()
    asked = {row.asks for row in connection.execute(sa.select(queue.c.asks).join(assignments, _asked).where(mine))}
    old = [
        row.item
        for row in rows[: max(0, len(rows) - REPEAT_AFTER)]
        if row.status == "submitted"
        and row.asks is None
        and row.pool in ("judge", "adjudicate")
        and row.item not in asked
    ]
    if not old:
        return None
    chosen = min(old, key=lambda item: project.mark("repeat", person.id, item))
    known = connection.scalar(sa.select(queue.c.item).where(queue.c.project == project.name, queue.c.asks == chosen))
    if known is not None:
        return known
    item = read_item(project, connection, chosen)
    again = item.model_copy(update={"id": project.mark("again", chosen)[:20], "repeats": chosen})
    project.store.add_items([again], project.name, connection)
    enrol(project, connection)
    return again.id


def read_event(connection: Connection, name: str) -> Event:
    """An event by its id."""
    return Event.from_json(connection.execute(sa.select(events.c.body).where(events.c.id == name)).scalar_one())


def read_item(project: Project, connection: Connection, item: str) -> Item:
    """A project's question by its id."""
    query = sa.select(items.c.body).where(items.c.project == project.name, items.c.id == item)
    return Item.model_validate_json(connection.execute(query).scalar_one())


# --- leases ----------------------------------------------------------------------------------------------------------


def lease(
    project: Project, connection: Connection, person: Person, tab: str, task: Task, item: str, anew: bool = True
) -> Given:
    """Put a person at a question, or renew that they are."""
    now = project.now()
    new = {"tab": tab, "expires": stamp(now + LEASE)}
    if anew:
        new |= {"lease": new_secret(), "given": stamp(now), "task": task}
    row = {"item": item, "person": person.id, "project": project.name}
    mine = _place(project, item, person)
    if connection.execute(sa.update(assignments).where(mine).values(new)).rowcount == 0:
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
    if over and not _still_wanted(project, connection, person, found.task, found.item, now):
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
    if last.status == "skipped" and not _still_wanted(project, connection, person, last.task, last.item, now):
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


def _still_wanted(project: Project, connection: Connection, person: Person, task: Task, item: str, now: str) -> bool:
    """Whether a question is open, and has room for this person."""
    of_item = sa.and_(queue.c.project == project.name, queue.c.item == item)
    free = sa.select(queue.c.item).where(of_item, queue.c.open, _room(project, person, task, now))
    return connection.scalar(free) is not None


# --- how far ---------------------------------------------------------------------------------------------------------


def progress(project: Project, connection: Connection, person: Person, task: Task = "judge") -> dict[str, int]:
    """How many questions a person has done and skipped, and how many are left that they have not seen or not done.

    What is left foresees the known and the repeated ones: if the total grew with each of them, it would give them away.
    """
    mine = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name, assignments.c.task == task)
    count = sa.func.count()
    by_status: dict[str, int] = dict(
        connection.execute(
            sa.select(assignments.c.status, count)
            .where(mine, assignments.c.status.is_not(None))
            .group_by(assignments.c.status)
        )
        .tuples()
        .all()
    )
    wanted = sa.and_(queue.c.project == project.name, queue.c.pool == task, queue.c.open)
    own = sa.select(count).select_from(assignments.join(queue, _asked))
    own = own.where(assignments.c.person == person.id)
    unseen = (connection.scalar(sa.select(count).where(wanted)) or 0) - (connection.scalar(own.where(wanted)) or 0)
    begun = own.where(mine, assignments.c.event.is_(None), queue.c.pool.in_(POOLS[task]), queue.c.open)
    left = connection.scalar(begun) or 0
    left += _ahead(project, connection, person, unseen) if task == "judge" else unseen
    done, skipped = by_status.get("submitted", 0), by_status.get("skipped", 0)
    return {"done": done, "skipped": skipped, "left": left, "total": done + skipped + left}


def _ahead(project: Project, connection: Connection, person: Person, ordinary: int) -> int:
    """How many questions a person is asked from now on until so many ordinary ones have come (`_drawn`).

    The next `FORESEEN` draws are looked up and the others estimated. Repeats are taken to be had once there can be any.
    """
    share = project.gold_share + project.repeat_share
    if not ordinary or not share:
        return ordinary
    count = sa.func.count()
    of_project = queue.c.project == project.name
    gold = connection.scalar(sa.select(count).where(of_project, queue.c.pool == "gold", _unseen(person))) or 0
    mine = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name)
    number = connection.scalar(sa.select(count).where(mine)) or 0
    asked = 0
    while ordinary and asked < FORESEEN:
        chance = project.chance("draw", person.id, number + asked)
        if chance < project.gold_share and gold:
            gold -= 1
        elif not (project.gold_share <= chance < share and number + asked > REPEAT_AFTER):
            ordinary -= 1
        asked += 1
    each = 1 / (1 - share) if share < 1 else 1.0  # questions to an ordinary one
    return (
        asked
        + ordinary
        + round(min(gold, ordinary * each * project.gold_share) + ordinary * each * project.repeat_share)
    )
