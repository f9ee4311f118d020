"""Which question a person gets next, and who is at which one.

Questions come by priority, then in the order in which they were added. Each is given to as many people as it wants
raters; being at one is a lease that ends when it isn't renewed. Nobody gets a question twice, but for repeats: among a
person's questions some have a known answer and some ask an earlier one again, drawn by a keyed hash, so that nobody
sees which. What raters don't agree on goes to an adjudicator who has not judged it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from rlhf_lightning.feedback.events import Event, Payload
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

    It takes a few queries however long the log is, and holds no texts of it.
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
    connection.execute(sa.delete(queue).where(queue.c.project == project.name))
    if line:
        connection.execute(sa.insert(queue), line)
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
    connection.execute(sa.delete(assignments).where(mine))
    kept = [values | stands_at[values["item"]] for values in rows.values() if values["item"] in stands_at]
    if kept:
        connection.execute(sa.insert(assignments), kept)


Places = dict[tuple[str, str], Any]
"""Rows of the log by item and person."""


def _holding(project: Project, connection: Connection) -> tuple[Places, Places]:
    """What each person's judgement or skip of each question is that holds, and their newest draft, if it is newer.

    Most of a log can be drafts, each with all its texts: events are told by their columns alone.
    """
    columns = (events.c.id, events.c.item, events.c.annotator, events.c.status, events.c.supersedes, events.c.time)
    explicit = sa.and_(events.c.project == project.name, events.c.kind != "implicit")
    log = connection.execute(sa.select(*columns).where(explicit).order_by(events.c.seq)).all()
    by_id = {row.id: row for row in log}
    gone = {
        row.supersedes
        for row in log
        if row.status != "draft" and row.supersedes in by_id and by_id[row.supersedes].annotator == row.annotator
    }
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
            mine, assignments.c.status.is_(None), sa.or_(assignments.c.expires.is_(None), assignments.c.expires <= now)
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
    places = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name)
    mine = sa.and_(places, assignments.c.task == task)
    count = sa.func.count()
    finished = sa.select(assignments.c.status, count).where(mine, assignments.c.status.is_not(None))
    by_status: dict[str, int] = dict(connection.execute(finished.group_by(assignments.c.status)).tuples().all())
    own = sa.select(assignments.c.pool, assignments.c.open, count).where(places)
    rows = connection.execute(own.group_by(assignments.c.pool, assignments.c.open)).tuples()
    seen = Counter({(pool, bool(wanted)): number for pool, wanted, number in rows})
    in_pool = sa.select(count).where(queue.c.project == project.name, queue.c.open)
    unseen = (connection.scalar(in_pool.where(queue.c.pool == task)) or 0) - seen[task, True]
    begun = sa.select(count).where(mine, assignments.c.status.is_(None))
    left = connection.scalar(begun.where(assignments.c.pool.in_(POOLS[task]), assignments.c.open)) or 0
    if task == "judge":
        gold = (connection.scalar(in_pool.where(queue.c.pool == "gold")) or 0) - seen["gold", True]
        left += _ahead(project, person, seen.total(), unseen, gold)
    else:
        left += unseen
    done, skipped = by_status.get("submitted", 0), by_status.get("skipped", 0)
    return {"done": done, "skipped": skipped, "left": left, "total": done + skipped + left}


def _ahead(project: Project, person: Person, number: int, ordinary: int, gold: int) -> int:
    """How many questions a person is asked from now on until so many ordinary ones have come (`_drawn`).

    The next `FORESEEN` draws are looked up and the others estimated. Repeats are taken to be had once there can be any.

    Args:
        project, person: whose draws they are.
        number: questions that the person has been given.
        ordinary, gold: those that they have not seen.
    """
    share = project.gold_share + project.repeat_share
    if not ordinary or not share:
        return ordinary
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
