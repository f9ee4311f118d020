"""Taking a person, or what has been kept long enough, out of a store.

An event that is erased leaves a tombstone: an event under its id, of the status ``erased``, that says nothing but its
project, kind, day and the version of the consent. A copy of the event that is imported later is therefore known, and
not stored again. Anonymising adds, under a fresh id, what is left of a judgement that holds when person, words and
hours are taken away; a correction, which is nothing but words, and marks in a text that is gone are only erased. The
questions that hold a person's words are erased whichever way is chosen.

What was made of events before is not in the store: `Erased.exports` names files and models, which their owner deletes
or trains anew.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.database import (
    EVERYWHERE,
    Named,
    erased_items,
    events,
    export_events,
    exports,
    facts,
    items,
    replaced,
    stamp,
    tables,
)
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event, Timing
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.lineage import models_of
from rlhf_lightning.feedback.payloads import Correction, Spans
from rlhf_lightning.feedback.privacy.retention import retention
from rlhf_lightning.feedback.salt import pseudonym, salt_of
from rlhf_lightning.feedback.server.tables import assignments, people, queue, sessions, tokens, turn
from rlhf_lightning.feedback.store import Store, event_row, item_mark

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

How = Literal["remove", "anonymise"]
GONE = "erased"
"""Item and annotator of a tombstone."""

PREFIX = 6
"""The fewest first characters of an id by which somebody may be named."""

BATCH = 400
"""Ids in one statement: databases bound the number of its values."""


class Export(NamedTuple):
    """Something outside the store that was made of events.

    Attributes:
        what: ``rows``, ``log`` or ``model``.
        path: where it lay when it was made.
        time: when that was.
        there: whether there is something at that path now.
    """

    what: str
    path: str
    time: str
    there: bool


@dataclass(frozen=True)
class Chosen:
    """What is to be erased.

    Attributes:
        annotators: ids of people who judged.
        persons: ids of people whose words or data questions hold.
        events: ids of the events.
        items: project and id of the questions that go with them.
        words: whether the question's texts go from these events, too.
    """

    annotators: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    items: tuple[Named, ...] = ()
    words: bool = False


@dataclass(frozen=True)
class Erased:
    """What was erased, or would be.

    Attributes:
        events: how many, by kind and status.
        others: rows of the server's tables, and questions, by what they are.
        exports: what was made of the events before.
        left: what could not be done, in words.
    """

    events: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    exports: tuple[Export, ...] = ()
    left: tuple[str, ...] = ()


# --- who or what -----------------------------------------------------------------------------------------------------


def annotator(store: Store, who: str) -> Chosen:
    """All that one person judged.

    Args:
        store: see there.
        who: id, its first characters (at least `PREFIX`, of one id alone), or the name by which they were invited or
            an imported file knew them.

    Raises:
        UserError: if the store knows nobody of that id or name, or several people whose ids begin so.
    """
    with _tables(store).connect() as connection:
        known = set(connection.scalars(sa.select(events.c.annotator).distinct()))
        for column in (people.c.id, assignments.c.person, tokens.c.person, sessions.c.person):
            known |= set(connection.scalars(sa.select(column).distinct()))
        named = set(connection.scalars(sa.select(people.c.id).where(people.c.name == who)))
        found = tuple(sorted(((known & _ids(connection, who)) | named) - {GONE}))
    found = found or _beginning(known - {GONE, None}, who, "--annotator")
    if not found:
        raise UserError(f"{store.shown_place} knows no annotator {who!r}: give the id as the log or the page shows it")
    with store.engine.connect() as connection:
        return Chosen(annotators=found, events=_of(connection, events.c.id, events.c.annotator, found))


def person(store: Store, who: str) -> Chosen:
    """All questions that hold one person's words or data, and what was said of them.

    Args:
        store: see there.
        who: id (the field ``person`` of questions), its first characters as in `annotator`, or the name that an
            imported file had.

    Raises:
        UserError: if the store holds nothing of such a person, or of several whose ids begin so.
    """
    with _tables(store).connect() as connection:
        known = {*connection.scalars(sa.select(events.c.person).distinct())}
        known |= {*connection.scalars(sa.select(items.c.person).distinct())}
        found = tuple(sorted(known & _ids(connection, who)))
        found = found or _beginning(known - {None}, who, "--person")
        if not found:
            raise UserError(f"{store.shown_place} holds no words of a person {who!r}: give the id in their questions")
        asked = sa.select(items.c.project, items.c.id).where(items.c.person.in_(found))
        names = set(connection.execute(asked).tuples())
        said = dict.fromkeys(_of(connection, events.c.id, events.c.person, found))
        for project, part in _by_project(names):
            of_item = sa.and_(events.c.project == project, events.c.item.in_(part))
            said |= dict.fromkeys(connection.scalars(sa.select(events.c.id).where(of_item)))
        return Chosen(persons=found, events=tuple(said), items=tuple(sorted(names)), words=True)


def older(store: Store, days: float, now: datetime | None = None) -> Chosen:
    """Events past a retention period, and the questions of which nothing newer was said.

    Raises:
        UserError: if the days can't be.
    """
    with _tables(store).connect() as connection:
        rows = connection.execute(
            sa.select(events.c.id, events.c.project, events.c.item, events.c.time)
            .where(events.c.status != "erased")
            .order_by(events.c.seq)
        ).all()
        past = retention([datetime.fromisoformat(row.time) for row in rows], days, now or datetime.now(timezone.utc))
        old = [row for row, is_past in zip(rows, past, strict=True) if is_past]
        newer = {(row.project, row.item) for row, is_past in zip(rows, past, strict=True) if not is_past}
        names: list[Named] = []
        for project, part in _by_project({(row.project, row.item) for row in old} - newer):
            known = sa.select(items.c.project, items.c.id).where(items.c.project == project, items.c.id.in_(part))
            names += connection.execute(known).tuples()
    return Chosen(events=tuple(row.id for row in old), items=tuple(sorted(names)), words=True)


def _ids(connection: Connection, who: str) -> set[str]:
    """The ids that somebody of this id or name may have; see `people.named` and `Import.person`."""
    from rlhf_lightning.feedback.formats import NAMES

    known = connection.scalar(sa.select(facts.c.value).where(facts.c.name == "salt"))
    if known is None:
        return {who}  # nobody was ever given a salted id
    salt = bytes.fromhex(known)
    plain = " ".join(unicodedata.normalize("NFKC", who).casefold().split())
    return {who, pseudonym(salt, plain), pseudonym(salt, who), *(pseudonym(salt, f"{name}:{who}") for name in NAMES)}


def _beginning(known: Iterable[str], who: str, option: str) -> tuple[str, ...]:
    """The one salted id that begins so, where there is one.

    Hexadecimal digits alone, as those ids have them, and not too few: else the name of somebody who is not there would
    erase another person whose id, in a log from elsewhere, begins like it.
    """
    if len(who) < PREFIX or set(who) - set("0123456789abcdef"):
        return ()
    found = tuple(sorted(name for name in known if name.startswith(who)))
    if len(found) > 1:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(f"{option} {who} may be any of {', '.join(found[:5])}{more}: give more of the id")
    return found


def _tables(store: Store) -> sa.Engine:
    with store.writing() as connection:
        tables.create_all(connection)  # a store that was never served lacks those of the server
    return store.engine


def _of(
    connection: Connection, wanted: sa.Column[Any], column: sa.Column[Any], values: Sequence[str]
) -> tuple[str, ...]:
    found: list[str] = []
    for part in _parts(values):
        found += connection.scalars(sa.select(wanted).where(column.in_(part)))
    return tuple(found)


def _by_project(named: Iterable[Named]) -> Iterable[tuple[str, Sequence[str]]]:
    """A project and at most so many ids of questions in it as a statement takes, again and again."""
    found: dict[str, list[str]] = defaultdict(list)
    for project, name in sorted(named):
        found[project].append(name)
    return ((project, part) for project, names in found.items() for part in _parts(names))


def _parts(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))


# --- erasing ---------------------------------------------------------------------------------------------------------


def counted(store: Store, chosen: Chosen) -> Erased:
    """What `erase` would do; nothing is changed."""
    with _tables(store).connect() as connection:
        return _counted(connection, chosen)


def erase(store: Store, chosen: Chosen, how: How = "remove") -> Erased:
    """Take what was chosen out of the store, in one transaction; then let SQLite overwrite what it freed.

    A server may be running on the store: the person is shut out at once; questions that want someone again are asked
    when it is started the next time.

    Args:
        store: see there.
        chosen: of `annotator`, `person` or `older`.
        how: ``remove``, or ``anonymise``: what was said stays, but of nobody, without free text and only by the day.
    """
    _tables(store)
    salt_of(store)  # for the marks of erased items
    lite = store.engine.dialect.name == "sqlite"
    with turn(store) as connection:
        if lite:
            connection.exec_driver_sql("pragma secure_delete=on")
        told = _counted(connection, chosen)
        fresh = _events(store, connection, chosen, how)
        _questions(store, connection, chosen)
        _people(connection, chosen, fresh, how)
        for part in _parts(chosen.events):
            connection.execute(sa.delete(replaced).where(replaced.c.of == "event", replaced.c.id.in_(part)))
    return Erased(told.events, told.others, told.exports, _overwritten(store) if lite else ())


def _counted(connection: Connection, chosen: Chosen) -> Erased:
    counts: Counter[str] = Counter()
    made: dict[str, Export] = {}
    for part in _parts(chosen.events):
        for kind, status in connection.execute(sa.select(events.c.kind, events.c.status).where(events.c.id.in_(part))):
            counts[f"{kind}, {status}"] += 1
        uses = sa.select(export_events.c.export).where(export_events.c.event.in_(part))
        for row in connection.execute(sa.select(exports).where(exports.c.id.in_(uses))):
            made[row.id] = Export(row.what, row.path, row.time, Path(row.path).exists())
    others: Counter[str] = Counter(questions=len(chosen.items))
    for name, table, column in _BY_PERSON:
        for part in _parts(chosen.annotators):
            query = sa.select(sa.func.count()).select_from(table).where(column.in_(part))
            others[name] += connection.scalar(query) or 0
    told = sorted(made.values(), key=lambda export: export.time)
    rows = [export for export in told if export.what == "rows"]
    models = [Export("model", m.path, m.time, Path(m.path).exists()) for e in rows for m in models_of(Path(e.path))]
    return Erased(counts, +others, (*told, *models))


_BY_PERSON: list[tuple[str, sa.Table, sa.Column[Any]]] = [
    ("names and consents", people, people.c.id),
    ("links", tokens, tokens.c.person),
    ("sessions", sessions, sessions.c.person),
    ("places in the queue", assignments, assignments.c.person),
]


def _events(store: Store, connection: Connection, chosen: Chosen, how: How) -> dict[str, str]:
    """Put tombstones in the events' places. Returns the fresh ids of annotators, and of events that were anonymised."""
    fresh = {name: secrets.token_hex(10) for name in chosen.annotators} if how == "anonymise" else {}
    kept: list[Event] = []
    old: list[Event] = []
    holding = {event.id for event in current(store.events(connection=connection))} if how == "anonymise" else set()
    for part in _parts(chosen.events):
        bodies = connection.scalars(sa.select(events.c.body).where(events.c.id.in_(part)).order_by(events.c.seq))
        old += map(Event.from_json, bodies)  # also such as were erased elsewhere, and still say whose they were
    if how == "anonymise":
        people_of = {event.annotator.id for event in old} if not chosen.persons else set()
        fresh |= {name: secrets.token_hex(10) for name in people_of - fresh.keys()}
        kept = [event for event in old if event.id in holding and _stays(event, chosen.words)]
        fresh |= {event.id: secrets.token_hex(16) for event in kept}
    for event in old:
        row = {name: value for name, value in event_row(tombstone(event)).items() if name != "id"}
        connection.execute(sa.update(events).where(events.c.id == event.id).values(row))
    store.add([anonymous(event, fresh, chosen.words) for event in kept], connection)
    return fresh


def tombstone(event: Event) -> Event:
    """What is left of an event that is erased."""
    return Event(
        id=event.id,
        time=day(event.time),
        project=event.project,
        item=GONE,
        kind=event.kind,
        asked=Asked(text=""),
        candidates=(),
        annotator=Annotator(id=GONE, role=event.annotator.role),
        status="erased",
        consent=event.consent,
    )


def _stays(event: Event, words: bool) -> bool:
    """Whether something is left of a judgement when words are taken away."""
    return not isinstance(event.payload, Correction) and not (words and isinstance(event.payload, Spans))


def anonymous(event: Event, fresh: dict[str, str], words: bool) -> Event:
    """The judgement of nobody: ids fresh, hours and free texts gone; with ``words``, the question's texts, too.

    Args:
        event: that holds, and `_stays`.
        fresh: new ids by old ones, of events and of people.
        words: whether the texts of prompt and candidates, and who is in them, go.
    """
    said: Any = event.payload
    payload = said.model_copy(update={"rationale": None}) if hasattr(said, "rationale") else said
    if isinstance(payload, Spans):
        payload = payload.model_copy(update={"spans": tuple(s.model_copy(update={"note": None}) for s in said.spans)})
    new: dict[str, Any] = {
        "id": fresh[event.id],
        "time": day(event.time),
        "annotator": Annotator(id=fresh.get(event.annotator.id, event.annotator.id), role=event.annotator.role),
        "timing": Timing(),
        "shown": event.shown.model_copy(update={"seed": None}),  # it follows from the person's id
        "reason": None,
        "supersedes": None,
        "adjudicates": tuple(fresh.get(name, name) for name in event.adjudicates),
        "payload": payload,
    }
    if words:
        new["item"] = fresh.setdefault(f"item/{event.project}/{event.item}", secrets.token_hex(10))
        new["repeats"] = None
        new["asked"] = Asked(text="", language=event.asked.language)
        new["candidates"] = tuple(Candidate(text="", model=c.model) for c in event.candidates)
        new["expected"] = None
    return Event.model_validate({**dict(event), **new})


def day(time: datetime) -> datetime:
    """The beginning of a moment's day, in UTC."""
    return time.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


def _questions(store: Store, connection: Connection, chosen: Chosen) -> None:
    for project, part in _by_project(chosen.items):
        of_items = sa.and_(items.c.project == project, items.c.id.in_(part))
        asked = [Item.model_validate_json(body) for body in connection.scalars(sa.select(items.c.body).where(of_items))]
        # What is asked under an id that follows from it is the same in each project; another id may name anything.
        named = [(project, name) for name in part] + [(EVERYWHERE, i.id) for i in asked if i.id == i.derived_id]
        marks = [{"mark": item_mark(connection, one)} for one in named]
        store._insert_new(connection, erased_items, marks, ["mark"])
        connection.execute(sa.delete(items).where(of_items))
        connection.execute(sa.delete(queue).where(queue.c.project == project, queue.c.item.in_(part)))
        connection.execute(sa.delete(assignments).where(assignments.c.project == project, assignments.c.item.in_(part)))
        of_item = sa.and_(replaced.c.of == "item", replaced.c.project == project, replaced.c.id.in_(part))
        connection.execute(sa.delete(replaced).where(of_item))


def _people(connection: Connection, chosen: Chosen, fresh: dict[str, str], how: How) -> None:
    """Take a person out of the server's tables; where they stay anonymously, only what they finished stays."""
    for name in chosen.annotators:
        connection.execute(sa.delete(tokens).where(tokens.c.person == name))
        connection.execute(sa.delete(sessions).where(sessions.c.person == name))
        connection.execute(sa.delete(people).where(people.c.id == name))
    for name in chosen.annotators:
        mine = assignments.c.person == name
        rows = connection.execute(sa.select(assignments).where(mine)).mappings().all()
        connection.execute(sa.delete(assignments).where(mine))
        for row in rows:
            if how == "remove" or row["event"] not in fresh:
                continue
            times = {key: stamp(day(datetime.fromisoformat(row[key]))) for key in ("given", "finished") if row[key]}
            ids = {"person": fresh[name], "event": fresh[row["event"]]}
            still = {**row, **ids, **times, "tab": None, "lease": None, "expires": None, "draft": None}
            connection.execute(sa.insert(assignments).values(still))


def _overwritten(store: Store) -> tuple[str, ...]:
    """Write SQLite's file anew without what was freed, and empty its log. Returns what could not be done."""
    with store.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection  # neither of the two can be done within a transaction
        try:
            raw.execute("vacuum")
            busy = raw.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
        except Exception as error:  # sqlite3.OperationalError: locked, or no room for the copy
            return (f"the file still holds what was erased ({error}): close what uses it, and erase once more",)
    if busy:
        return ("the file still holds what was erased, as something is reading it: close that, and erase once more",)
    return ()
