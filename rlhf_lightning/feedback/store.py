"""The event log and the questions, in SQLite (a file) or PostgreSQL (a URL).

Events are only ever added; `erase` alone rewrites them. An event is stored once however often it is sent, and `add`
returns when the database has it on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.items import Item

try:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql, sqlite
except ImportError as missing:  # pragma: no cover
    raise UserError("feedback needs the package sqlalchemy: pip install 'rlhf-lightning[feedback]'") from missing

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

SCHEMA = 1
BUSY_MS = 30_000
"""How long a writer waits for another one's transaction in SQLite."""

WRITES = "rlhf_writes"
"""Mark of a connection whose transactions write."""

tables = sa.MetaData()

facts = sa.Table(
    "facts",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
"""What the store knows of itself: its schema's number, the salt of its people's ids, a project's settings."""

events = sa.Table(
    "events",
    tables,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("time", sa.Text, nullable=False),  # ISO 8601 in UTC: orders as text
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("item", sa.Text, nullable=False, index=True),
    sa.Column("annotator", sa.Text, nullable=False, index=True),
    sa.Column("person", sa.Text, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("supersedes", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

items = sa.Table(
    "items",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False, index=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("priority", sa.Float, nullable=False),
    sa.Column("person", sa.Text, index=True),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

exports = sa.Table(
    "exports",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),  # "rows", "log", "model"
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
"""What was made of events and lies outside: files of rows, models trained on them."""

export_events = sa.Table(
    "export_events",
    tables,
    sa.Column("export", sa.Text, sa.ForeignKey("exports.id"), primary_key=True),
    sa.Column("event", sa.Text, primary_key=True, index=True),
)


def stamp(time: datetime) -> str:
    """A moment as the store writes it: ISO 8601 in UTC, of one length."""
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds")


class Conflict(UserError):
    """Another event is already stored under this id."""


class Store:
    """A store that is open.

    Args:
        place: a file (made where it isn't there), or a URL as SQLAlchemy has them (``postgresql+psycopg://...``).
        create: make tables that are missing; else a store that isn't there is refused.

    Raises:
        UserError: if it can't be opened, or was written by another version.
    """

    def __init__(self, place: str | Path, create: bool = True) -> None:
        self.place = str(place)
        self.engine = _engine(self.place, create)
        try:
            with self.writing() as connection:
                if not create and not sa.inspect(connection).has_table("facts"):
                    raise UserError(f"{self.shown_place} holds no feedback: `rlhf-feedback serve` makes one")
                _lock_schema(connection)
                tables.create_all(connection)
                self._insert_new(connection, facts, [{"name": "schema", "value": str(SCHEMA)}], ["name"])
                found = connection.scalar(sa.select(facts.c.value).where(facts.c.name == "schema"))
        except sa.exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise UserError(f"cannot open the feedback store {self.shown_place}: {reason}") from error
        if found != str(SCHEMA):
            raise UserError(
                f"the feedback store {self.shown_place} has schema {found}, this version has {SCHEMA}: use the version "
                "that made it to export it with `rlhf-feedback export`, and import that here"
            )

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
            new: events; one that is stored already, and is equal, is passed over.
            connection: of a transaction that they are to be part of (`writing`).

        Returns:
            How many were new.

        Raises:
            Conflict: if an event of this id is stored that is not equal.
        """
        if connection is None:
            with self.writing() as own:
                return self.add(new, own)
        added = 0
        rows = [event_row(event) for event in new]
        for start in range(0, len(rows), 500):
            part: dict[str, dict[str, Any]] = {}
            for row in rows[start : start + 500]:
                if part.setdefault(row["id"], row)["body"] != row["body"]:
                    raise Conflict(f"two events with the id {row['id']} differ")
            written = self._insert_new(connection, events, list(part.values()), ["id"])
            if written < len(part):  # some were stored before: they must be these
                query = sa.select(events.c.id, events.c.body).where(events.c.id.in_(list(part)))
                for name, body in connection.execute(query):
                    if body != part[name]["body"]:
                        raise Conflict(f"an event with the id {name} is stored already, and is another one")
            added += written
        return added

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

    # --- questions ---------------------------------------------------------------------------------------------------

    def add_items(self, new: Iterable[Item], project: str = "default", connection: Connection | None = None) -> int:
        """Store questions; those of a known id are passed over. Returns how many were new."""
        if connection is None:
            with self.writing() as own:
                return self.add_items(new, project, own)
        _lock_items(connection)
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
            for i, item in enumerate(new)
        ]
        return self._insert_new(connection, items, rows, ["id"])

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


def _lock_schema(connection: Connection) -> None:
    """Two processes that open a new PostgreSQL store at once would both make its tables."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("select pg_advisory_xact_lock(7246112)"))


def _lock_items(connection: Connection) -> None:
    """Two transactions that add questions at once to PostgreSQL would both count from the same number, and the queue,
    which takes in what comes after the newest it knows, would miss those that are committed later."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("select pg_advisory_xact_lock(7246113)"))


def _engine(place: str, create: bool) -> sa.Engine:
    if "://" not in place:
        path = Path(place).expanduser()
        if not path.exists():
            if not create:
                raise UserError(f"there is no feedback store {path}")
            path.parent.mkdir(parents=True, exist_ok=True)
        place = f"sqlite:///{path.absolute()}"
    try:
        url = sa.make_url(place)
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise UserError(f"a feedback store is SQLite (a file) or postgresql://..., not {url.get_backend_name()}")
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
            return sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        settings = {"timeout": BUSY_MS / 1000, "check_same_thread": False}
        engine = sa.create_engine(url, connect_args=settings, hide_parameters=True)  # errors are logged, texts are not
    except ImportError as missing:
        raise UserError("PostgreSQL needs the package psycopg: pip install 'rlhf-lightning[postgres]'") from missing
    except sa.exc.ArgumentError as error:
        raise UserError(
            "the feedback store's address is no file and no URL such as postgresql://user@host/db"
        ) from error

    @sa.event.listens_for(engine, "connect")
    def _settle(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        cursor = connection.cursor()
        cursor.execute("pragma journal_mode=wal")
        cursor.execute("pragma synchronous=full")  # what is acknowledged outlives a power cut
        cursor.execute(f"pragma busy_timeout={BUSY_MS}")
        cursor.execute("pragma foreign_keys=on")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A transaction that reads first and then writes would fail at once where another one wrote in between.
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("begin immediate" if writes else "begin")

    return engine
