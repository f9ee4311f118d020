"""The event log and the questions, in SQLite (a file) or PostgreSQL (a URL).

Events are only ever added; `erase` alone rewrites them, and what it took away is not taken in again. An event is stored
once however often it is sent, and `add` returns when the database has it on disk. All that comes in passes `add` and
`add_items`: there personal data is replaced, where the store was opened with a scrubber.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.database import (
    EVERYWHERE,
    WRITES,
    Named,
    erased_items,
    events,
    export_events,
    exports,
    facts,
    items,
    lock_order,
    lock_schema,
    open_engine,
    replaced,
    stamp,
    tables,
)
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.items import Item

try:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql, sqlite
except ImportError as missing:  # pragma: no cover
    raise UserError("feedback needs the package sqlalchemy: pip install 'rlhf-lightning[feedback]'") from missing

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rlhf_lightning.feedback.privacy.storing import Replaced, Scrubber

SCHEMA = 2


class Conflict(UserError):
    """Another event is already stored under this id."""


class Store:
    """A store that is open.

    Args:
        place: a file (made where it isn't there), or a URL as SQLAlchemy has them (``postgresql+psycopg://...``).
        create: make tables that are missing; else a store that isn't there is refused.
        scrubber: replaces personal data in what is added; without one, all is stored as it is.

    Raises:
        UserError: if it can't be opened, or was written by another version.
    """

    def __init__(self, place: str | Path, create: bool = True, scrubber: Scrubber | None = None) -> None:
        self.place = str(place)
        self.scrubber = scrubber
        self.engine = open_engine(self.place, create)
        try:
            with self.writing() as connection:
                if not create and not sa.inspect(connection).has_table("facts"):
                    raise UserError(f"{self.shown_place} holds no feedback: `rlhf-feedback serve` makes one")
                lock_schema(connection)
                tables.create_all(connection)
                self._insert_new(connection, facts, [{"name": "schema", "value": str(SCHEMA)}], ["name"])
                found = connection.scalar(sa.select(facts.c.value).where(facts.c.name == "schema"))
                if found != str(SCHEMA):  # within the transaction: no table is added to it
                    raise UserError(
                        f"the feedback store {self.shown_place} has schema {found}, this version has {SCHEMA}: use the "
                        "version that made it to export it with `rlhf-feedback export`, and import that here"
                    )
        except sa.exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise UserError(f"cannot open the feedback store {self.shown_place}: {reason}") from error

    @property
    def shown_place(self) -> str:
        """Where it is, without a password."""
        if "://" not in self.place:
            return self.place
        return sa.make_url(self.place).render_as_string(hide_password=True)

    def close(self) -> None:
        """Give its connections back."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: whole or not at all, and one at a time in SQLite."""
        with self.engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            yield connection

    # --- events ------------------------------------------------------------------------------------------------------

    def add(self, new: Iterable[Event], connection: Connection | None = None) -> int:
        """Store events, all of them or none.

        Args:
            new: events; one that is stored already, and is equal, is passed over, and so is one that was erased.
            connection: of a transaction that they are to be part of (`writing`).

        Returns:
            How many were new.

        Raises:
            Conflict: if an event of this id is stored that is not equal.
        """
        if connection is None:
            with self.writing() as own:
                return self.add(new, own)
        lock_order(connection)
        added = 0
        batch = list(new)
        for start in range(0, len(batch), 500):
            part: dict[str, dict[str, Any]] = {}
            places: dict[str, list[Replaced]] = {}
            for given in batch[start : start + 500]:
                event, places[given.id] = (given, []) if self.scrubber is None else self.scrubber.event(given)
                row = event_row(event)
                if part.setdefault(event.id, row)["body"] != row["body"]:
                    raise Conflict(f"two events with the id {event.id} differ")
            gone = self._erased(connection, [(row["project"], row["item"]) for row in part.values()])
            part = {name: row for name, row in part.items() if (row["project"], row["item"]) not in gone}
            written = self._insert_new(connection, events, list(part.values()), ["id"])
            erased: set[str] = set()
            if written < len(part):  # some were stored before: they must be these, or have been erased
                query = sa.select(events.c.id, events.c.body, events.c.status).where(events.c.id.in_(list(part)))
                for name, body, status in connection.execute(query):
                    if status == "erased":
                        erased.add(name)
                    elif body != part[name]["body"]:
                        raise Conflict(f"an event with the id {name} is stored already, and is another one")
            noted = {(row["project"], name): places[name] for name, row in part.items() if name not in erased}
            self._note_replaced(connection, "event", noted)
            added += written
        return added

    def _erased(self, connection: Connection, named: Iterable[Named]) -> set[Named]:
        """Which of these items were erased, in their project or for all projects."""
        if connection.scalar(sa.select(erased_items.c.mark).limit(1)) is None:
            return set()
        marks = {one: (item_mark(connection, one), item_mark(connection, (EVERYWHERE, one[1]))) for one in named}
        asked = list({mark for both in marks.values() for mark in both})
        found: set[str] = set()
        for start in range(0, len(asked), 900):  # SQLite bounds the number of values of a statement
            part = asked[start : start + 900]
            found |= set(connection.scalars(sa.select(erased_items.c.mark).where(erased_items.c.mark.in_(part))))
        return {one for one, both in marks.items() if not found.isdisjoint(both)}

    def _note_replaced(self, connection: Connection, of: str, places: dict[Named, list[Replaced]]) -> None:
        rows = [
            {"of": of, "project": project, "id": name, **place._asdict()}
            for (project, name), found in places.items()
            for place in found
        ]
        self._insert_new(connection, replaced, rows, ["of", "project", "id", "field", "start"])

    def as_stored(self, event: Event) -> Event:
        """The event as `add` stores it."""
        return event if self.scrubber is None else self.scrubber.event(event)[0]

    def stored_item(self, item: Item) -> Item:
        """The question as `add_items` stores it; an id that followed from its texts may be another one."""
        return item if self.scrubber is None else self.scrubber.item(item)[0]

    def note_texts(self) -> None:
        """Remember that from now on personal data was replaced, or texts were kept as they are."""
        name = "texts/kept" if self.scrubber is None else "texts/replaced"
        with self.writing() as connection:
            self._insert_new(connection, facts, [{"name": name, "value": stamp(datetime.now(timezone.utc))}], ["name"])

    def events(
        self,
        project: str | None = None,
        kinds: Sequence[str] | None = None,
        item: str | None = None,
        annotator: str | None = None,
        connection: Connection | None = None,
    ) -> Iterator[Event]:
        """The log in the order in which it was written, all of it or what is asked for."""
        query = sa.select(events.c.body, events.c.id).order_by(events.c.seq)
        for column, value in ((events.c.project, project), (events.c.item, item), (events.c.annotator, annotator)):
            if value is not None:
                query = query.where(column == value)
        if kinds is not None:
            query = query.where(events.c.kind.in_(list(kinds)))
        if connection is not None:
            rows = connection.execute(query).all()
        else:
            with self.engine.connect() as own:
                rows = own.execute(query).all()
        for body, name in rows:
            yield Event.from_json(body, f"{self.shown_place}, event {name}")

    def newest(self) -> int:
        """The number of the last event; it grows with each new one, so that nothing need be read where it has not.

        What is stored later has a higher number, on either database (`lock_order`).
        """
        with self.engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.coalesce(sa.func.max(events.c.seq), 0))) or 0

    def answered(self, project: str, people: int) -> set[str]:
        """The questions of a project that so many people, or more, have answered; the others are `items.unanswered`.

        The database counts them, which is cheap enough to be asked again and again: no event is read.
        """
        later = (
            sa.select(events.c.supersedes, events.c.annotator)
            .where(events.c.supersedes.is_not(None), events.c.status != "draft")
            .subquery()
        )
        gone = sa.and_(later.c.supersedes == events.c.id, later.c.annotator == events.c.annotator)
        query = (
            sa.select(events.c.item)
            .select_from(events.outerjoin(later, gone))
            .where(events.c.project == project, events.c.status.in_(["submitted", "skipped"]))
            .where(later.c.supersedes.is_(None))
            .group_by(events.c.item)
            .having(sa.func.count(events.c.annotator.distinct()) >= people)
        )
        with self.engine.connect() as connection:
            return set(connection.scalars(query))

    # --- questions ---------------------------------------------------------------------------------------------------

    def add_items(self, new: Iterable[Item], project: str = "default", connection: Connection | None = None) -> int:
        """Store questions; those whose id the project knows, or erased, are passed over. Returns how many were new."""
        if connection is None:
            with self.writing() as own:
                return self.add_items(new, project, own)
        lock_order(connection)
        told = [(item, []) if self.scrubber is None else self.scrubber.item(item) for item in new]
        gone = self._erased(connection, [(project, item.id) for item, _ in told])
        start = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(items.c.seq), -1))) or 0
        rows = [
            {
                "id": item.id,
                "seq": start + 1 + i,
                "project": project,
                "kind": item.kind,
                "priority": item.priority,
                "person": item.asked.person,
                "open": True,
                "body": item.to_json(),
            }
            for i, (item, _) in enumerate(told)
            if (project, item.id) not in gone
        ]
        added = self._insert_new(connection, items, rows, ["project", "id"])
        noted = {(project, item.id): found for item, found in told if (project, item.id) not in gone}
        self._note_replaced(connection, "item", noted)
        return added

    def items(self, project: str | None = None, connection: Connection | None = None) -> Iterator[Item]:
        """The questions, in the order in which they were added."""
        query = sa.select(items.c.body).order_by(items.c.seq)
        if project is not None:
            query = query.where(items.c.project == project)
        if connection is not None:
            bodies = connection.scalars(query).all()
        else:
            with self.engine.connect() as own:
                bodies = own.scalars(query).all()
        for body in bodies:
            yield Item.model_validate_json(body)

    # --- what was made of it -----------------------------------------------------------------------------------------

    def note_export(self, name: str, what: str, path: str, used: Iterable[str], **more: Any) -> None:
        """Remember that a file or a model was made of events, so that `erase` can name it.

        Args:
            name: id of the export.
            what: ``rows``, ``log`` or ``model``.
            path: where it lies.
            used: ids of the events in it.
            more: what else is to be known of it.
        """
        with self.writing() as connection:
            row = {"id": name, "time": stamp(datetime.now(timezone.utc)), "what": what, "path": path}
            self._insert_new(connection, exports, [{**row, "body": json.dumps(more)}], ["id"])
            links = [{"export": name, "event": event} for event in dict.fromkeys(used)]
            self._insert_new(connection, export_events, links, ["export", "event"])

    def _insert_new(
        self, connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]], keys: Sequence[str]
    ) -> int:
        """Insert rows whose keys are not there yet; returns how many."""
        dialect: Any = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        written = 0
        width = max(1, 900 // max(1, len(table.columns)))  # SQLite bounds the number of values of a statement
        for start in range(0, len(rows), width):
            statement = dialect.insert(table).values(list(rows[start : start + width]))
            new = statement.on_conflict_do_nothing(index_elements=list(keys)).returning(table.c[keys[0]])
            written += len(connection.execute(new).all())  # drivers don't agree on what a row count is here
        return written


def event_row(event: Event) -> dict[str, Any]:
    """An event as a row of its table."""
    return {
        "id": event.id,
        "time": stamp(event.time),
        "project": event.project,
        "item": event.item,
        "annotator": event.annotator.id,
        "person": event.asked.person,
        "kind": event.kind,
        "status": event.status,
        "supersedes": event.supersedes,
        "body": event.to_json(),
    }


def item_mark(connection: Connection, named: Named) -> str:
    """What is kept of an erased item's id: the id may follow from its texts, which could be guessed from it."""
    from rlhf_lightning.feedback.salt import pseudonym

    salt = connection.scalar(sa.select(facts.c.value).where(facts.c.name == "salt"))
    return pseudonym(bytes.fromhex(str(salt)), "\x00item/" + "/".join(named))
